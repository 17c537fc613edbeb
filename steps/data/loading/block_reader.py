"""Where the blocks of a split are, and reads them whole, checked, into memory that is used again and again.

A block is read with one call, and its xxh3 is compared with the index before anyone sees a row of it. A block that
cannot be read is tried once more, then quarantined: its name and the count of lost samples are printed, rows of the
next good block stand in for its own, and reading goes on until too large a fraction is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from steps.data.latents.block import MAX_HEADER_BYTES, Array, BlockError, Field, digest, parse_layout
from steps.data.latents.latents_manifest import LatentsIndex
from steps.data.latents.order import Rows
from steps.data.loading.block_files import BlockFiles
from steps.errors import StepError

MAX_LOST_FRACTION: Final = 0.001
# A network file system that was busy gets a moment; what is not there, or has other bytes, does not change by waiting.
RETRY_DELAY_S: Final = 1.0
# Of so many shards the first block may be damaged before a reader gives up.
_TRIED_SHARDS: Final = 8
# The tensors whose shape is the bucket's.
LATENT_FIELDS: Final = frozenset({"mean", "std"})


# Memory for one block: its tensors from MAX_HEADER_BYTES on, so that they are aligned, and its header before them. In
# one piece, for one read and one checksum; and numpy asks the system for huge pages from 4 MiB on.
_Scratch = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class BlockTable:
    """The blocks of a split, in the order of their rows."""

    names: tuple[str, ...]
    shards: npt.NDArray[np.int32]
    buckets: npt.NDArray[np.int32]
    """Whose rows it holds; never decreasing."""
    rows: Rows
    offsets: Rows
    """First byte in the shard."""
    sizes: Rows
    digests: npt.NDArray[np.uint64]

    @cached_property
    def first_rows(self) -> Rows:
        """Row of the split with which each block begins."""
        return np.cumsum(self.rows) - self.rows

    @cached_property
    def count(self) -> int:
        """Rows of the split."""
        return int(self.rows.sum())

    def blocks_of(self, bucket: int) -> slice:
        """Return the blocks of a bucket."""
        first, end = np.searchsorted(self.buckets, (bucket, bucket + 1)).tolist()
        return slice(first, end)

    def shard(self, block: int) -> str:
        """Return the name of the shard that holds a block."""
        return self.names[int(self.shards[block])]

    def name(self, block: int) -> str:
        """Return what people call a block."""
        return f"{self.shard(block)} at byte {int(self.offsets[block])}"


def block_table(index: LatentsIndex, split: str) -> BlockTable:
    """Return the blocks of a split."""
    shards = [shard for shard in index.shards if shard.split == split]
    counts = [len(shard.block_rows) for shard in shards]
    return BlockTable(
        names=tuple(shard.name for shard in shards),
        shards=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
        buckets=np.repeat(np.array([shard.bucket for shard in shards], np.int32), counts),
        rows=_column([shard.block_rows for shard in shards]),
        offsets=_column([shard.offsets for shard in shards]),
        sizes=_column([shard.sizes for shard in shards]),
        digests=np.array([int(text, 16) for shard in shards for text in shard.xxh3], dtype=np.uint64),
    )


def _column(lists: list[tuple[int, ...]]) -> Rows:
    return np.concatenate([np.asarray(values, dtype=np.int64) for values in lists] or [np.empty(0, np.int64)])


class BlockReader:
    """Blocks of one split; several threads may read at once."""

    def __init__(
        self,
        files: BlockFiles,
        table: BlockTable,
        latent_shapes: Sequence[tuple[int, int, int]],
        max_lost_fraction: float = MAX_LOST_FRACTION,
    ) -> None:
        """Read the first block's layout; no more than `max_lost_fraction` of the rows may be unreadable."""
        self.table = table
        fields = _fields(files, table)
        self.fields = tuple(_shaped(fields, shape) for shape in latent_shapes)
        """The tensors of every block, for each bucket."""
        self.quarantined: dict[int, str] = {}
        """Blocks that could not be read, and why."""
        self._files = files
        self._max_lost_rows = max_lost_fraction * table.count
        self._max_rows = int(table.rows.max())
        self._good_headers: set[tuple[bytes, int, tuple[Field, ...]]] = set()
        self._free: list[_Scratch] = []
        self._lock = threading.Lock()

    @property
    def lost_rows(self) -> int:
        """Rows that other rows stand in for."""
        return sum(int(self.table.rows[block]) for block in tuple(self.quarantined))

    @contextmanager
    def read(self, block: int) -> Iterator[Mapping[str, Array]]:
        """Lend the tensors of a block, in memory that is used again. Raises StepError when too many rows are lost."""
        # The memory that came back last is the one that the CPU's cache still holds.
        scratch = self._free.pop() if self._free else self._scratch()
        try:
            failure = self._try(block, scratch)
            if failure:
                self._quarantine(block, failure)
                self._substitute(block, scratch)
            yield self._tensors(block, scratch)
        finally:
            self._free.append(scratch)

    def _scratch(self) -> _Scratch:
        return np.zeros(MAX_HEADER_BYTES + self._max_rows * max(map(_row_bytes, self.fields)), np.uint8)

    def _tensors(self, block: int, scratch: _Scratch) -> dict[str, Array]:
        """Return the memory of a block as its tensors, in the order of its bytes."""
        rows, tensors, start = int(self.table.rows[block]), {}, MAX_HEADER_BYTES
        for field in self.fields[int(self.table.buckets[block])]:
            stop = start + rows * field.row_bytes
            tensors[field.name] = scratch[start:stop].view(field.dtype).reshape(rows, *field.row_shape)
            start = stop
        return tensors

    def _try(self, block: int, scratch: _Scratch) -> str:
        """Read a block; return why that failed twice, or nothing."""
        failure = ""
        for delay_s in (RETRY_DELAY_S, 0.0):
            try:
                self._read(block, scratch)
                return ""
            except (FileNotFoundError, BlockError) as error:
                failure = str(error)
            except OSError as error:
                failure = str(error)
                time.sleep(delay_s)
        return failure

    def _read(self, block: int, scratch: _Scratch) -> None:
        table, rows, size = self.table, int(self.table.rows[block]), int(self.table.sizes[block])
        fields = self.fields[int(table.buckets[block])]
        header_bytes = size - rows * _row_bytes(fields)
        if not 0 < header_bytes <= MAX_HEADER_BYTES:
            raise BlockError(f"{size} bytes cannot hold {rows} rows like those of the other blocks")
        content = scratch.data[MAX_HEADER_BYTES - header_bytes :][:size]
        self._files.read_into(table.shard(block), int(table.offsets[block]), content)
        xxh3 = digest(content)
        if int(xxh3, 16) != int(table.digests[block]):
            raise BlockError(f"its bytes have digest {xxh3}, the index has {int(table.digests[block]):016x}")
        self._check_header(bytes(content[:header_bytes]), rows, fields)

    def _check_header(self, header: bytes, rows: int, fields: tuple[Field, ...]) -> None:
        if (header, rows, fields) in self._good_headers:
            return
        layout = parse_layout(header)
        if layout.rows != rows or layout.fields != fields or layout.header != header:
            raise BlockError("its tensors are not those of the other blocks")
        self._good_headers.add((header, rows, fields))

    def _quarantine(self, block: int, reason: str) -> None:
        name, rows = self.table.name(block), int(self.table.rows[block])
        with self._lock:
            if block not in self.quarantined:
                self.quarantined[block] = reason
                print(f"QUARANTINE {name}: {reason}; {rows} samples lost, {self.lost_rows} in all", flush=True)
            lost_rows = self.lost_rows
        if lost_rows > self._max_lost_rows:
            raise StepError(
                f"latents: {lost_rows} of {self.table.count} samples cannot be read, the last in {name} ({reason}); "
                "run encode again to make those shards anew, or allow more with max_lost_fraction"
            )

    def _substitute(self, block: int, scratch: _Scratch) -> None:
        """Read the next block of the same shape that can be read, its rows over and over where it has fewer."""
        own = self.table.blocks_of(int(self.table.buckets[block]))
        for other in (*range(block + 1, own.stop), *range(own.start, block)):
            if other in self.quarantined:
                continue
            failure = self._try(other, scratch)
            if not failure:
                _repeat(self._tensors(block, scratch), int(self.table.rows[other]))
                return
            self._quarantine(other, failure)
        raise StepError(f"latents: no block can be read, the last was {self.table.name(block)}")


def _row_bytes(fields: tuple[Field, ...]) -> int:
    return sum(field.row_bytes for field in fields)


def _repeat(tensors: Mapping[str, Array], there: int) -> None:
    """Fill tensors whose first `there` rows are filled."""
    for tensor in tensors.values():
        for begin in range(there, len(tensor), there):
            tensor[begin : begin + there] = tensor[: len(tensor) - begin][:there]


def _shaped(fields: tuple[Field, ...], latent_shape: tuple[int, int, int]) -> tuple[Field, ...]:
    """Return the tensors of a bucket's blocks, from those of another bucket's."""
    return tuple(replace(field, row_shape=latent_shape) if field.name in LATENT_FIELDS else field for field in fields)


def _fields(files: BlockFiles, table: BlockTable) -> tuple[Field, ...]:
    """Return the tensors of every block, by the first sound one of a few shards. Raises StepError where none is."""
    failure = ""
    for block in np.unique(table.shards, return_index=True)[1][:_TRIED_SHARDS].tolist():
        content = bytearray(int(table.sizes[block]))
        try:
            files.read_into(table.shard(block), int(table.offsets[block]), memoryview(content))
            if int(digest(content), 16) == int(table.digests[block]):
                return parse_layout(bytes(content)).fields
            failure = f"{table.name(block)}: not the bytes of the index"
        except (OSError, BlockError) as error:
            failure = f"{table.name(block)}: {error}"
    raise StepError(f"latents: no block can be read, the last was {failure}; run encode again")
