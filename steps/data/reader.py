"""Reads rows of latents: whole blocks, checked, into memory that is used again and again.

A block is read once with one call, straight into its slot; its xxh3 is compared with the index. A block that cannot be
read is tried once more, then quarantined: its name and the count of lost samples are printed, rows of the next good
block stand in for its own, and reading goes on until too large a fraction is lost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from steps.data.block import MAX_HEADER_BYTES, Array, BlockError, Field, digest, parse_layout
from steps.data.order import Rows
from steps.errors import StepError

# Blocks of one batch that are missing are read side by side: Lustre and S3 mounts answer many at once.
READ_THREADS: Final = 8
MAX_LOST_FRACTION: Final = 0.001


@dataclass(frozen=True, eq=False)
class BlockTable:
    """Where the blocks of a split are: arrays with one entry for each block."""

    paths: tuple[Path, ...]
    """The shards."""
    shards: npt.NDArray[np.int32]
    """Which shard holds the block."""
    rows: Rows
    """Rows of the block."""
    offsets: Rows
    """First byte in the shard."""
    sizes: Rows
    """Bytes."""
    digests: npt.NDArray[np.uint64]
    """xxh3 of the bytes."""

    @cached_property
    def first_rows(self) -> Rows:
        """Row of the split with which each block begins."""
        return np.cumsum(self.rows) - self.rows

    @cached_property
    def count(self) -> int:
        """Rows of the split."""
        return int(self.rows.sum())

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The tensors of every block, as the first one has them. Raises StepError where it cannot be read."""
        path = self.paths[self.shards[0]]
        try:
            with path.open("rb") as file:
                file.seek(int(self.offsets[0]))
                return parse_layout(file.read(min(int(self.sizes[0]), MAX_HEADER_BYTES))).fields
        except (OSError, BlockError) as error:
            raise StepError(f"{path}: its first block cannot be read: {error}; run encode again") from None

    def name(self, block: int) -> str:
        """Return what people call a block."""
        return f"{self.paths[self.shards[block]].name} at byte {int(self.offsets[block])}"


class LatentsReader:
    """Rows of one split through a cache of blocks. Not for several threads at once."""

    def __init__(self, blocks: BlockTable, capacity_blocks: int, max_lost_fraction: float = MAX_LOST_FRACTION) -> None:
        """Take memory for `capacity_blocks` blocks; no more than `max_lost_fraction` of the rows may be unreadable."""
        self._blocks = blocks
        self._max_lost_rows = max_lost_fraction * blocks.count
        self._slot_rows = int(blocks.rows.max())
        capacity = max(1, min(capacity_blocks, len(blocks.rows)))
        self._memory = {field.name: field.zeros(capacity * self._slot_rows) for field in blocks.fields}
        self._row_bytes = sum(tensor[:1].nbytes for tensor in self._memory.values())
        self._slot_blocks = np.full(capacity, -1, np.int64)
        self._slot_used = np.zeros(capacity, np.int64)
        self._slots: dict[int, int] = {}
        self._clock = 0
        self._good_headers: set[tuple[bytes, int]] = set()
        self._pool: ThreadPoolExecutor | None = None
        self.quarantined: dict[int, str] = {}
        """Blocks that could not be read, and why."""

    @property
    def lost_rows(self) -> int:
        """Rows that other rows stand in for."""
        return sum(int(self._blocks.rows[block]) for block in self.quarantined)

    def read_into(self, rows: Rows, out: Mapping[str, Array]) -> None:
        """Copy rows, in the order asked for, into arrays whose first dimension is the number of rows.

        Raises IndexError for a row that is not there, StepError when more rows are lost than allowed.
        """
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < self._blocks.count):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} of {self._blocks.count}")
        block_of = np.searchsorted(self._blocks.first_rows, rows, side="right") - 1
        wanted, which = np.unique(block_of, return_inverse=True)
        inside = rows - self._blocks.first_rows[block_of]
        capacity = len(self._slot_blocks)
        if len(wanted) <= capacity:
            self._gather(self._load(wanted)[which] * self._slot_rows + inside, out)
            return
        for start in range(0, len(wanted), capacity):
            part = np.flatnonzero((which >= start) & (which < start + capacity))
            slots = self._load(wanted[start : start + capacity])
            places = slots[which[part] - start] * self._slot_rows + inside[part]
            for name, target in out.items():
                target[part] = self._memory[name][places]

    def close(self) -> None:
        """Let the reading threads go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _gather(self, places: Rows, out: Mapping[str, Array]) -> None:
        for name, target in out.items():
            # Any mode but the default lets numpy write to `out` without a copy in between; rows are checked above.
            np.take(self._memory[name], places, axis=0, out=target, mode="clip")

    def _load(self, wanted: Rows) -> Rows:
        """Return the slots of blocks, reading what is missing in place of what was used longest ago."""
        self._clock += 1
        slots = np.array([self._slots.get(block, -1) for block in wanted.tolist()], np.int64)
        self._slot_used[slots[slots >= 0]] = self._clock
        missing = np.flatnonzero(slots < 0)
        if len(missing):
            free = np.argsort(self._slot_used, kind="stable")[: len(missing)]
            self._evict(free)
            slots[missing] = free
            self._fill(wanted[missing].tolist(), free.tolist())
            self._slot_used[free] = self._clock
        return slots

    def _evict(self, slots: Rows) -> None:
        for slot in slots.tolist():
            self._slots.pop(int(self._slot_blocks[slot]), None)
            self._slot_blocks[slot] = -1
            self._slot_used[slot] = 0

    def _fill(self, blocks: Sequence[int], slots: Sequence[int]) -> None:
        if len(blocks) == 1:
            failures = [self._try(blocks[0], slots[0])]
        else:
            self._pool = self._pool or ThreadPoolExecutor(READ_THREADS, thread_name_prefix="latents")
            failures = list(self._pool.map(self._try, blocks, slots))
        for block, slot, failure in zip(blocks, slots, failures, strict=True):
            if failure:
                self._quarantine(block, failure)
                self._substitute(block, slot)
            self._slots[block] = slot
            self._slot_blocks[slot] = block

    def _try(self, block: int, slot: int) -> str:
        """Read a block into a slot; return why that failed twice, or nothing."""
        failure = ""
        for _ in range(2):
            try:
                self._read(block, slot)
                return ""
            except (OSError, BlockError) as error:
                failure = str(error)
        return failure

    def _read(self, block: int, slot: int) -> None:
        rows, size = int(self._blocks.rows[block]), int(self._blocks.sizes[block])
        header = bytearray(max(0, size - rows * self._row_bytes))
        start = slot * self._slot_rows
        tensors = [tensor[start : start + rows] for tensor in self._memory.values()]
        parts = [memoryview(header), *(tensor.data.cast("B") for tensor in tensors)]
        _read_fully(self._blocks.paths[self._blocks.shards[block]], int(self._blocks.offsets[block]), parts)
        found = digest(*parts)
        if int(found, 16) != int(self._blocks.digests[block]):
            raise BlockError(f"its bytes have digest {found}, the index has {int(self._blocks.digests[block]):016x}")
        self._check_header(bytes(header), rows)

    def _check_header(self, header: bytes, rows: int) -> None:
        if (header, rows) in self._good_headers:
            return
        layout = parse_layout(header)
        if layout.rows != rows or layout.fields != self._blocks.fields or layout.header != header:
            raise BlockError("its tensors are not those of the other blocks")
        self._good_headers.add((header, rows))

    def _quarantine(self, block: int, reason: str) -> None:
        first_time = block not in self.quarantined
        self.quarantined[block] = reason
        if first_time:
            name, rows = self._blocks.name(block), int(self._blocks.rows[block])
            print(f"QUARANTINE {name}: {reason}; {rows} samples lost, {self.lost_rows} in all", flush=True)
        if self.lost_rows > self._max_lost_rows:
            raise StepError(
                f"latents: {self.lost_rows} of {self._blocks.count} samples cannot be read, the last in "
                f"{self._blocks.name(block)} ({reason}); run encode again to make those shards anew"
            )

    def _substitute(self, block: int, slot: int) -> None:
        """Fill a slot with the rows of the next block that can be read, over and over where that has fewer."""
        count = len(self._blocks.rows)
        candidates = ((block + step) % count for step in range(1, count))
        for other in candidates:
            if other in self.quarantined:
                continue
            failure = self._try(other, slot)
            if not failure:
                self._repeat(slot, int(self._blocks.rows[other]), int(self._blocks.rows[block]))
                return
            self._quarantine(other, failure)
        raise StepError(f"latents: no block can be read, the last was {self._blocks.name(block)}")

    def _repeat(self, slot: int, there: int, wanted: int) -> None:
        start = slot * self._slot_rows
        for tensor in self._memory.values():
            for begin in range(there, wanted, there):
                end = min(begin + there, wanted)
                tensor[start + begin : start + end] = tensor[start : start + end - begin]


def _read_fully(path: Path, offset: int, parts: Sequence[memoryview]) -> None:
    """Fill buffers with the bytes from `offset` on; network file systems may answer in pieces.

    Raises BlockError where the file ends before.
    """
    pending = [part for part in parts if len(part)]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while pending:
            count = os.preadv(descriptor, pending, offset)
            if count == 0:
                raise BlockError(f"the file ends {sum(map(len, pending))} bytes too early")
            offset += count
            while pending and count >= len(pending[0]):
                count -= len(pending.pop(0))
            if count:
                pending[0] = pending[0][count:]
    finally:
        os.close(descriptor)
