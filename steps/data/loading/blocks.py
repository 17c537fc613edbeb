"""The blocks of a split, lent one at a time: rows of others stand in for those of a block that cannot be had.

A block that cannot be had is quarantined: its name and the count of lost samples are printed, rows of the next good
block of its shape stand in for its own, and loading goes on until too large a fraction is lost.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from steps.data.latents.block import Array, BlockError, Field
from steps.data.latents.order import Rows
from steps.errors import StepError

MAX_LOST_FRACTION: Final = 0.001

Tensors = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class BlockRows:
    """How many rows each block of a split has, in their order."""

    rows: npt.NDArray[np.signedinteger[Any]]
    buckets: npt.NDArray[np.int32]
    """Whose rows it holds; never decreasing."""

    @cached_property
    def first_rows(self) -> Rows:
        """Row of the split with which each block begins."""
        first_rows: Rows = np.cumsum(self.rows, dtype=np.int64) - self.rows
        return first_rows

    @cached_property
    def count(self) -> int:
        return int(self.rows.sum())

    def blocks_of(self, bucket: int) -> slice:
        first, end = np.searchsorted(self.buckets, (bucket, bucket + 1)).tolist()
        return slice(first, end)

    def name(self, block: int) -> str:
        """Return what people call a block."""
        return f"block {block}"


class Blocks(ABC):
    """Blocks of one split; several threads may have some at once."""

    lost = "cannot be read"
    """What is said of samples that cannot be had."""
    advice = "run encode again to make those shards anew, or allow more with max_lost_fraction"

    def __init__(self, table: BlockRows, fields: Sequence[tuple[Field, ...]], max_lost_fraction: float) -> None:
        """No more than `max_lost_fraction` of the rows may be lost."""
        self.table: BlockRows = table
        self.fields = tuple(fields)
        """The tensors of every block, for each bucket."""
        self.quarantined: dict[int, str] = {}
        """Blocks that could not be had, and why."""
        self._max_lost_rows = max_lost_fraction * table.count
        self._lock = threading.Lock()

    @property
    def lost_rows(self) -> int:
        return sum(int(self.table.rows[block]) for block in tuple(self.quarantined))

    @abstractmethod
    def read(self, block: int) -> AbstractContextManager[Tensors]:
        """Lend the tensors of a block. Raises StepError when too many rows are lost."""

    def _whole(self, block: int, attempt: Callable[[int], Tensors]) -> Tensors:
        """Return what an attempt (raises BlockError) gives for the block, or the next one of its shape, repeated."""
        own = self.table.blocks_of(int(self.table.buckets[block]))
        for other in (block, *range(block + 1, own.stop), *range(own.start, block)):
            if other != block and other in self.quarantined:
                continue
            try:
                tensors = attempt(other)
            except BlockError as error:
                self._quarantine(other, str(error))
                continue
            rows = int(self.table.rows[block])
            return tensors if other == block else {name: _repeated(one, rows) for name, one in tensors.items()}
        raise StepError(f"latents: no block can be had, the last was {self.table.name(block)}")

    def _quarantine(self, block: int, reason: str) -> None:
        name, rows = self.table.name(block), int(self.table.rows[block])
        with self._lock:
            if block not in self.quarantined:
                self.quarantined[block] = reason
                print(f"QUARANTINE {name}: {reason}; {rows} samples lost, {self.lost_rows} in all", flush=True)
            lost_rows = self.lost_rows
        if lost_rows > self._max_lost_rows:
            raise StepError(
                f"latents: {lost_rows} of {self.table.count} samples {self.lost}, the last in {name} ({reason}); "
                + self.advice
            )


def _repeated(tensor: Array, rows: int) -> Array:
    return np.resize(tensor, (rows, *tensor.shape[1:]))
