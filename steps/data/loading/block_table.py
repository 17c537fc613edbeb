"""Where the blocks of a split are: arrays with one entry for each block, however many shards there are.

Reads nothing, writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from steps.data.latents.latents_manifest import LatentsIndex
from steps.data.latents.order import Rows


@dataclass(frozen=True, eq=False)
class BlockTable:
    """The blocks of a split, in the order of their rows."""

    names: tuple[str, ...]
    shards: npt.NDArray[np.int32]
    """Which shard holds the block."""
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
