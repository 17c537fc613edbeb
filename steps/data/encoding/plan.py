"""The plan of an encoding: which samples become which rows of which latents shard.

A pure function of the verified shards, their captions and the settings; so the shards are the same whoever encodes
them, in whatever order, and a killed job finds out what is missing. Rows of a split are its samples in the order of
(bucket, shard, key); every shard but the last of a bucket is full, and holds latents of one shape. So the samples of a
verified shard are parts of blocks of every bucket: who encodes reads it once, and deals them out (EncodePlan.dealt).
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, PlainSerializer, PlainValidator, ValidationError

from params.arguments import describe
from params.heldout import caption_hash, is_heldout
from params.layout import HELDOUT_SPLIT, LATENTS_SHARD_PATTERN, TRAIN_SPLIT
from params.model import Model
from steps.data.encoding.buckets import Buckets, Size
from steps.data.encoding.samples import SampleTable
from steps.data.latents.order import Rows
from steps.errors import StepError


@dataclass(frozen=True)
class Selection:
    """Which samples of the shards are encoded, in which split and shape."""

    heldout_fraction: float
    """Of the captions."""
    buckets: Buckets
    min_original_px: int = 0


@dataclass(frozen=True)
class SourceSummary:
    """What planning needs to know of one verified shard."""

    train_samples: tuple[int, ...]
    """Samples for training, of each bucket."""
    heldout: tuple[tuple[int, int, int], ...]
    """(caption hash, row of the shard's table, bucket) of the others."""
    too_small_samples: int = 0
    """Samples that are left out because their originals were too small."""


@dataclass(frozen=True)
class PlannedShard:
    """One latents shard to be made."""

    name: str
    split: str
    first_row: int
    """Row of the split with which it begins."""
    block_rows: tuple[int, ...]
    bucket: int = 0
    """Which shape its pictures have."""

    @property
    def rows(self) -> int:
        return sum(self.block_rows)


class Part(NamedTuple):
    """Neighbouring rows of a split that are samples of one verified shard."""

    source: int
    """Which of the verified shards."""
    split: str
    bucket: int
    place: int
    """Of the shard's samples of that split and bucket, the first."""
    rows: int


# The name of a latents shard and the number of one of its blocks.
Block = tuple[str, int]


def _table(rows: Any) -> npt.NDArray[np.int64]:
    array = np.array(rows, np.int64)
    return array if array.size else array.reshape(-1, 3)


Table = Annotated[npt.NDArray[np.int64], PlainValidator(_table), PlainSerializer(lambda table: table.tolist())]


class EncodePlan(Model):
    """Rows of both splits."""

    sources: tuple[str, ...]
    """Verified shards, in the order of the manifest."""
    train_counts: Table
    """[buckets, shards]: training samples."""
    heldout: Table
    """[samples, 3]: bucket, shard and row of its table of each held-out sample that is kept, in order."""
    dropped_heldout_samples: int
    """Held-out samples over the limit."""
    heldout_fraction: float
    shapes: tuple[Size, ...]
    """Height and width in pixels of every shape that a picture may have."""
    buckets: tuple[int, ...]
    """Which of them are buckets: those that have samples enough."""
    min_original_px: int = 0
    too_small_samples: int = Field(0, exclude=True)
    """Samples that were left out for the sides of their originals."""

    @property
    def selection(self) -> Selection:
        """Which samples are encoded."""
        return Selection(self.heldout_fraction, Buckets(self.shapes, self.buckets), self.min_original_px)

    @property
    def counts(self) -> dict[str, int]:
        return {split: int(counts.sum()) for split, counts in self._counts.items()}

    def bucket_counts(self, split: str) -> Rows:
        """Return the samples of each bucket, int64 [buckets]."""
        counts: Rows = self._counts[split].sum(axis=1)
        return counts

    def shards(self, rows_per_shard: int, rows_per_block: int) -> Iterator[PlannedShard]:
        """Yield the shards of both splits."""
        for split in self.counts:
            index, end = 0, 0
            for bucket, count in enumerate(self.bucket_counts(split).tolist()):
                begin, end = end, end + count
                for first in range(begin, end, rows_per_shard):
                    name = LATENTS_SHARD_PATTERN.format(split=split, index=index)
                    blocks = _blocks(min(rows_per_shard, end - first), rows_per_block)
                    yield PlannedShard(name, split, first, blocks, bucket)
                    index += 1

    def dealt(self, shards: Sequence[PlannedShard]) -> Iterator[list[tuple[Block, Part]]]:
        """Yield, source by source, the parts of latents shards' blocks that it has; shards as `shards` yields them."""
        streams = [self._parts(list(alike)) for _, alike in groupby(shards, key=lambda one: (one.split, one.bucket))]
        merged = heapq.merge(*streams, key=lambda one: one[1].source)
        for _, parts in groupby(merged, key=lambda one: one[1].source):
            yield list(parts)

    def _parts(self, shards: Sequence[PlannedShard]) -> Iterator[tuple[Block, Part]]:
        for shard in shards:
            first = shard.first_row
            for number, rows in enumerate(shard.block_rows):
                yield from (((shard.name, number), part) for part in self.locate(shard.split, first, rows))
                first += rows

    def locate(self, split: str, first: int, count: int) -> list[Part]:
        """Return where rows of a split are, in their order."""
        ends = self._ends[split]
        parts, row = list[Part](), first
        while row < first + count:
            place = int(np.searchsorted(ends, row, side="right"))
            begin = int(ends[place - 1]) if place else 0
            stop = min(first + count, int(ends[place]))
            bucket, source = divmod(place, len(self.sources))
            parts.append(Part(source, split, bucket, row - begin, stop - row))
            row = stop
        return parts

    def heldout_rows(self, bucket: int, source: int) -> Rows:
        """Return the rows of a shard's table that are held-out samples of a bucket, ascending."""
        rows: Rows = self.heldout[(self.heldout[:, 0] == bucket) & (self.heldout[:, 1] == source), 2]
        return rows

    @cached_property
    def _counts(self) -> dict[str, npt.NDArray[np.int64]]:
        heldout = np.zeros_like(self.train_counts)
        np.add.at(heldout, (self.heldout[:, 0], self.heldout[:, 1]), 1)
        return {TRAIN_SPLIT: self.train_counts, HELDOUT_SPLIT: heldout}

    @cached_property
    def _ends(self) -> dict[str, Rows]:
        """How many samples of each split there are up to each shard of each bucket."""
        return {split: np.cumsum(counts) for split, counts in self._counts.items()}


def _blocks(rows: int, rows_per_block: int) -> tuple[int, ...]:
    full, rest = divmod(rows, rows_per_block)
    return (rows_per_block,) * full + ((rest,) if rest else ())


def train_rows(table: SampleTable, selection: Selection) -> list[Rows]:
    """Return the rows of a shard's table that are training samples, ascending, for each bucket."""
    # Training sees neither a held-out caption nor a picture that is held out with another of its captions.
    kept = ~_heldout(table.captions, selection.heldout_fraction)
    if table.first_captions:
        kept &= ~_heldout(table.first_captions, selection.heldout_fraction)
    of = selection.buckets.nearest(table.widths, table.heights)
    return [np.flatnonzero(kept & (of == bucket)) for bucket in range(len(selection.buckets.sizes))]


def _heldout(captions: Sequence[str], fraction: float) -> npt.NDArray[np.bool_]:
    return np.array([is_heldout(caption, fraction) for caption in captions], bool)


def summarize(table: SampleTable, selection: Selection) -> SourceSummary:
    """Return what planning needs to know of a shard. Raises StepError where it does not tell the pictures' sides."""
    if len(selection.buckets.candidates) > 1 and len(table.keys) and not int(table.heights.min()):
        raise StepError(f"{table.name}: its table does not tell the pictures' sides, as buckets need; download again")
    held = _heldout(table.named_by, selection.heldout_fraction)
    if table.first_captions:
        # A picture is held out once, with its first caption.
        held &= np.array([one == first for one, first in zip(table.captions, table.first_captions, strict=True)], bool)
    of = selection.buckets.nearest(table.widths, table.heights)
    return SourceSummary(
        train_samples=tuple(map(len, train_rows(table, selection))),
        heldout=tuple((caption_hash(table.captions[row]), row, int(of[row])) for row in np.flatnonzero(held).tolist()),
        too_small_samples=table.too_small_samples,
    )


def make_plan(
    sources: Sequence[str],
    summaries: Sequence[SourceSummary],
    selection: Selection,
    max_heldout_samples: int,
    min_bucket_samples: int = 1,
) -> EncodePlan:
    """Return the plan: buckets with too few samples are given up; of held-out samples, the smallest hashes are kept."""
    counts = np.array([summary.train_samples for summary in summaries], dtype=np.int64).T
    merged = selection.buckets.merged(counts.sum(axis=1), min_bucket_samples)
    taking = merged.of_sizes(selection.buckets.sizes)
    train_counts = np.zeros((len(merged.sizes), len(sources)), dtype=np.int64)
    np.add.at(train_counts, taking, counts)
    candidates = sorted(
        (hashed, source, row, bucket)
        for source, summary in enumerate(summaries)
        for hashed, row, bucket in summary.heldout
    )
    kept = sorted((int(taking[bucket]), source, row) for _, source, row, bucket in candidates[:max_heldout_samples])
    return EncodePlan(
        sources=tuple(sources),
        train_counts=train_counts,
        heldout=np.array(kept, dtype=np.int64),
        dropped_heldout_samples=len(candidates) - len(kept),
        heldout_fraction=selection.heldout_fraction,
        shapes=merged.candidates,
        buckets=merged.kept,
        min_original_px=selection.min_original_px,
        too_small_samples=sum(summary.too_small_samples for summary in summaries),
    )


class PlanFile(EncodePlan):
    """plan.json of the latents artifact: which sample is which row, so that online encoding need not read captions."""

    plan_digest: str
    """Of the encoding that planned it."""
    rows_per_shard: int
    rows_per_block: int

    def block_rows(self, split: str) -> Rows:
        """Return the rows of each block of a split, int64 [blocks]: as Encode cuts them."""
        shards = self.shards(self.rows_per_shard, self.rows_per_block)
        return np.array([rows for shard in shards if shard.split == split for rows in shard.block_rows], np.int64)


def read_plan_file(path: Path) -> PlanFile:
    """Return a plan. Raises StepError where it is missing or is none."""
    try:
        return PlanFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StepError(f"{path}: cannot be read ({error.strerror}): run encode again, it writes the plan") from None
    except ValidationError as error:
        raise StepError(f"{path}: {describe(error)[:300]}") from None
