"""Blocks that lie in shards: read with one call each, compared with the index's xxh3, in memory that is used again."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from steps.data.latents.block import MAX_HEADER_BYTES, Array, BlockError, Field, digest, parse_layout
from steps.data.latents.latents_index import of_split
from steps.data.latents.order import Rows
from steps.data.loading.blocks import MAX_LOST_FRACTION, BlockRows, Blocks, Tensors
from steps.data.storage import Storage
from steps.errors import StepError

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
class BlockTable(BlockRows):
    names: tuple[str, ...]
    shard_starts: Rows
    """The first block of each shard."""
    offsets: Rows
    """First byte in the shard."""
    sizes: npt.NDArray[np.int32]
    digests: npt.NDArray[np.uint64]

    def shard(self, block: int) -> str:
        return self.names[int(np.searchsorted(self.shard_starts, block, side="right")) - 1]

    def name(self, block: int) -> str:
        """Return what people call a block."""
        return f"{self.shard(block)} at byte {int(self.offsets[block])}"


def block_table(index: Any, split: str) -> BlockTable:
    """Return the blocks of a split of an index (latents_index), in its memory."""
    part = of_split(index, split)
    buckets, counts = part["bucket"].to_numpy(), part["offsets"].value_lengths().to_numpy()
    one_shape = len(set(buckets.tolist())) == 1
    return BlockTable(
        names=tuple(part["name"].to_pylist()),
        shard_starts=np.cumsum(counts, dtype=np.int64) - counts,
        buckets=np.broadcast_to(buckets[0], counts.sum()) if one_shape else np.repeat(buckets, counts),
        rows=part["block_rows"].flatten().to_numpy(),
        offsets=part["offsets"].flatten().to_numpy(),
        sizes=part["sizes"].flatten().to_numpy(),
        digests=part["xxh3"].flatten().to_numpy(),
    )


class BlockReader(Blocks):
    table: BlockTable

    def __init__(
        self,
        files: Storage,
        table: BlockTable,
        latent_shapes: Sequence[tuple[int, int, int]],
        max_lost_fraction: float = MAX_LOST_FRACTION,
    ) -> None:
        """Read the first block's layout."""
        fields = _fields(files, table)
        super().__init__(table, [_shaped(fields, shape) for shape in latent_shapes], max_lost_fraction)
        self._files = files
        self._scratch_bytes = MAX_HEADER_BYTES + int(table.rows.max()) * max(map(_row_bytes, self.fields))
        self._good_headers: set[tuple[bytes, int, tuple[Field, ...]]] = set()
        self._free: list[_Scratch] = []

    @contextmanager
    def read(self, block: int) -> Iterator[Tensors]:
        """Lend the tensors of a block, in memory that is used again. Raises StepError when too many rows are lost."""
        # The memory that came back last is the one that the CPU's cache still holds.
        scratch = self._free.pop() if self._free else np.zeros(self._scratch_bytes, np.uint8)
        try:
            yield self._whole(block, lambda number: self._patiently(number, scratch))
        finally:
            self._free.append(scratch)

    def _patiently(self, block: int, scratch: _Scratch) -> Tensors:
        """Read a block, twice if need be. Raises BlockError."""
        failure: Exception = BlockError()
        for delay_s in (RETRY_DELAY_S, 0.0):
            try:
                return self._read(block, scratch)
            except (FileNotFoundError, BlockError) as error:
                failure = error
            except OSError as error:
                failure = error
                time.sleep(delay_s)
        raise BlockError(str(failure))

    def _read(self, block: int, scratch: _Scratch) -> Tensors:
        table, rows, size = self.table, int(self.table.rows[block]), int(self.table.sizes[block])
        fields = self.fields[int(table.buckets[block])]
        header_bytes = size - rows * _row_bytes(fields)
        if not 0 < header_bytes <= MAX_HEADER_BYTES:
            raise BlockError(f"{size} bytes cannot hold {rows} rows like those of the other blocks")
        content = scratch.data[MAX_HEADER_BYTES - header_bytes :][:size]
        missing = size - self._files.read_into(table.shard(block), int(table.offsets[block]), content)
        if missing:
            raise BlockError(f"the file ends {missing} bytes too early")
        xxh3 = digest(content)
        if int(xxh3, 16) != int(table.digests[block]):
            raise BlockError(f"its bytes have digest {xxh3}, the index has {int(table.digests[block]):016x}")
        self._check_header(bytes(content[:header_bytes]), rows, fields)
        return _tensors(scratch, rows, fields)

    def _check_header(self, header: bytes, rows: int, fields: tuple[Field, ...]) -> None:
        if (header, rows, fields) in self._good_headers:
            return
        layout = parse_layout(header)
        if layout.rows != rows or layout.fields != fields or layout.header != header:
            raise BlockError("its tensors are not those of the other blocks")
        self._good_headers.add((header, rows, fields))


def _tensors(scratch: _Scratch, rows: int, fields: tuple[Field, ...]) -> dict[str, Array]:
    """Return the memory of a block as its tensors, in the order of its bytes."""
    tensors, start = {}, MAX_HEADER_BYTES
    for field in fields:
        stop = start + rows * field.row_bytes
        tensors[field.name] = scratch[start:stop].view(field.dtype).reshape(rows, *field.row_shape)
        start = stop
    return tensors


def _row_bytes(fields: tuple[Field, ...]) -> int:
    return sum(field.row_bytes for field in fields)


def _shaped(fields: tuple[Field, ...], latent_shape: tuple[int, int, int]) -> tuple[Field, ...]:
    """Return the tensors of a bucket's blocks, from those of another bucket's."""
    return tuple(replace(field, row_shape=latent_shape) if field.name in LATENT_FIELDS else field for field in fields)


def _fields(files: Storage, table: BlockTable) -> tuple[Field, ...]:
    """Return the tensors of every block, by the first sound one of a few shards. Raises StepError where none is."""
    failure = ""
    for block in table.shard_starts[:_TRIED_SHARDS].tolist():
        content = bytearray(int(table.sizes[block]))
        try:
            files.read_into(table.shard(block), int(table.offsets[block]), memoryview(content))
            if int(digest(content), 16) == int(table.digests[block]):
                return parse_layout(bytes(content)).fields
            failure = f"{table.name(block)}: not the bytes of the index"
        except (OSError, BlockError) as error:
            failure = f"{table.name(block)}: {error}"
    raise StepError(f"latents: no block can be read, the last was {failure}; run encode again")
