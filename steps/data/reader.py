"""Rows of latents in any order, for what is read rarely or again and again: held-out samples, a first batch.

Reads blocks through steps.data.block_reader and keeps the last ones; training's stream has its own way, the loader.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from steps.data.block import Array, Field
from steps.data.block_reader import BlockReader
from steps.data.order import Rows


class LatentsReader:
    """Rows of one split through a cache of blocks. Not for several threads at once."""

    def __init__(self, blocks: BlockReader, capacity_blocks: int) -> None:
        """Keep up to `capacity_blocks` blocks in memory."""
        self._blocks = blocks
        self._capacity = max(1, capacity_blocks)
        self._kept: OrderedDict[int, Mapping[str, Array]] = OrderedDict()

    def fields(self, rows: Rows) -> tuple[Field, ...]:
        """Return the tensors of rows. Raises ValueError where they are not all of one bucket."""
        table = self._blocks.table
        buckets = np.unique(table.buckets[np.searchsorted(table.first_rows, rows, side="right") - 1])
        if len(buckets) > 1:
            raise ValueError(f"rows of buckets {buckets.tolist()} have different shapes")
        return self._blocks.fields[int(buckets[0]) if len(buckets) else 0]

    @property
    def lost_rows(self) -> int:
        """Rows that other rows stand in for."""
        return self._blocks.lost_rows

    def read_into(self, rows: Rows, out: Mapping[str, Array]) -> None:
        """Copy rows, in the order asked for, into arrays whose first dimension is the number of rows.

        Raises IndexError for a row that is not there, StepError when more rows are lost than allowed.
        """
        table = self._blocks.table
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < table.count):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} of {table.count}")
        block_of = np.searchsorted(table.first_rows, rows, side="right") - 1
        for block in np.unique(block_of).tolist():
            wanted = np.flatnonzero(block_of == block)
            tensors, inside = self._block(block), rows[wanted] - table.first_rows[block]
            for name, target in out.items():
                target[wanted] = tensors[name][inside]

    def _block(self, block: int) -> Mapping[str, Array]:
        tensors = self._kept.get(block)
        if tensors is None:
            with self._blocks.read(block) as lent:
                tensors = {name: tensor.copy() for name, tensor in lent.items()}
            if len(self._kept) >= self._capacity:
                self._kept.popitem(last=False)
            self._kept[block] = tensors
        self._kept.move_to_end(block)
        return tensors
