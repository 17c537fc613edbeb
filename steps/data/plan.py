"""The plan of an encoding: which samples become which rows of which latents shard.

A pure function of the verified shards, their captions and the settings; so the shards are the same whoever encodes
them, in whatever order, and a killed job finds out what is missing. Rows of a split are its samples in the order of
(shard, key); every shard but the last is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from params.layout import HELDOUT_SPLIT, LATENTS_SHARD_PATTERN, TRAIN_SPLIT
from steps.data.order import Rows
from steps.data.samples import SampleTable, caption_hash, is_heldout


@dataclass(frozen=True)
class SourceSummary:
    """What planning needs to know of one verified shard."""

    train_samples: int
    """Samples for training."""
    heldout: tuple[tuple[int, int], ...]
    """(caption hash, row of the shard's table) of the others."""


@dataclass(frozen=True)
class PlannedShard:
    """One latents shard to be made."""

    name: str
    """Its file."""
    split: str
    """`train` or `heldout`."""
    first_row: int
    """Row of the split with which it begins."""
    block_rows: tuple[int, ...]
    """Rows of each block."""

    @property
    def rows(self) -> int:
        """Rows in it."""
        return sum(self.block_rows)


@dataclass(frozen=True, eq=False)
class EncodePlan:
    """Rows of both splits."""

    sources: tuple[str, ...]
    """Verified shards, in the order of the manifest."""
    train_counts: Rows
    """Training samples of each."""
    heldout: npt.NDArray[np.int64]
    """[samples, 2]: shard and row of its table of each held-out sample that is kept, in order."""
    dropped_heldout_samples: int
    """Held-out samples over the limit."""
    heldout_fraction: float
    """Which captions are held out."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """Samples of each split."""
        return {TRAIN_SPLIT: int(self.train_counts.sum()), HELDOUT_SPLIT: len(self.heldout)}

    def shards(self, rows_per_shard: int, rows_per_block: int) -> Iterator[PlannedShard]:
        """Yield the shards of both splits."""
        for split, count in self.counts.items():
            for index, first in enumerate(range(0, count, rows_per_shard)):
                rows = min(rows_per_shard, count - first)
                full, rest = divmod(rows, rows_per_block)
                blocks = (rows_per_block,) * full + ((rest,) if rest else ())
                yield PlannedShard(LATENTS_SHARD_PATTERN.format(split=split, index=index), split, first, blocks)

    def locate(self, split: str, first: int, count: int) -> list[tuple[int, int, int]]:
        """Return (shard, first place, count) of rows; a place counts the split's samples within the shard."""
        ends = self._ends[split]
        found, row = [], first
        while row < first + count:
            source = int(np.searchsorted(ends, row, side="right"))
            begin = int(ends[source - 1]) if source else 0
            stop = min(first + count, int(ends[source]))
            found.append((source, row - begin, stop - row))
            row = stop
        return found

    def heldout_rows(self, source: int) -> Rows:
        """Return the rows of a shard's table that are held-out samples, ascending."""
        rows: Rows = self.heldout[self.heldout[:, 0] == source, 1]
        return rows

    @cached_property
    def _ends(self) -> dict[str, Rows]:
        """How many samples of each split the shards up to each one have."""
        heldout = np.bincount(self.heldout[:, 0], minlength=len(self.sources))
        return {TRAIN_SPLIT: np.cumsum(self.train_counts), HELDOUT_SPLIT: np.cumsum(heldout)}


def train_rows(table: SampleTable, heldout_fraction: float) -> Rows:
    """Return the rows of a shard's table that are training samples, ascending."""
    kept = [row for row, caption in enumerate(table.captions) if not is_heldout(caption, heldout_fraction)]
    return np.array(kept, dtype=np.int64)


def summarize(table: SampleTable, heldout_fraction: float) -> SourceSummary:
    """Return what planning needs to know of a shard."""
    held = [(caption_hash(text), row) for row, text in enumerate(table.captions) if is_heldout(text, heldout_fraction)]
    return SourceSummary(len(table.captions) - len(held), tuple(held))


def make_plan(
    sources: Sequence[str], summaries: Sequence[SourceSummary], heldout_fraction: float, max_heldout_samples: int
) -> EncodePlan:
    """Return the plan. Over the limit, the held-out samples with the smallest caption hashes are kept."""
    candidates = sorted(
        (hashed, source, row) for source, summary in enumerate(summaries) for hashed, row in summary.heldout
    )
    kept = sorted((source, row) for _, source, row in candidates[:max_heldout_samples])
    return EncodePlan(
        sources=tuple(sources),
        train_counts=np.array([summary.train_samples for summary in summaries], dtype=np.int64),
        heldout=np.array(kept, dtype=np.int64).reshape(-1, 2),
        dropped_heldout_samples=len(candidates) - len(kept),
        heldout_fraction=heldout_fraction,
    )
