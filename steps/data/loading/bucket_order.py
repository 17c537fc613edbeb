"""In which order training sees rows of several shapes: a pure function of (seed, position), each batch of one bucket.

Every bucket is an endless stream of its own, ordered as latents/order.py says, and global batches take turns: in the
e-th pass over the data, a bucket of n rows has floor((e + 1) n / G) - floor(e n / G) global batches of G, shuffled
among those of the others. So every row comes exactly once in each pass over its bucket, and what is left of one when
the turns of a pass are over, fewer than G rows, comes first in its next turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from steps.data.latents.order import Rows, SampleOrder, permutation

_TURNS: Final = 2
# Turns of so many passes stay in memory: those of the batch in use, and of those read ahead.
_KEPT_PASSES: Final = 2


@dataclass(frozen=True)
class BucketStream:
    """One bucket's rows and their order."""

    bucket: int
    order: SampleOrder
    """Of rows and blocks that are counted from the bucket's first."""
    first_row: int
    """Row of the split with which the bucket begins."""
    first_block: int
    """Block of the split with which it begins."""


class Turn(NamedTuple):
    """What a global batch is."""

    stream: int
    number: int
    """Which of the stream's global batches."""


class TrainingOrder:
    """Global batches of an endless training stream."""

    def __init__(self, streams: Sequence[BucketStream]) -> None:
        """Prepare the order of streams: one at least, all of the same seed and global batch size."""
        self.streams: Final = tuple(streams)
        self.global_batch_size: Final = self.streams[0].order.global_batch_size
        self._seed = self.streams[0].order.seed
        self._counts = np.array([stream.order.count for stream in self.streams], np.int64)
        self._pass = lru_cache(_KEPT_PASSES)(self._make_pass)

    def turn(self, batch: int) -> Turn:
        """Return what global batch `batch` of the stream is."""
        number, place = self._locate(batch)
        streams, numbers = self._pass(number)
        return Turn(int(streams[place]), int(numbers[place]))

    def numbers(self, batches: range) -> list[range]:
        """Return which of its batches each stream has among neighbouring global batches."""
        before, after = self._progress(batches.start), self._progress(batches.stop)
        return [range(first, stop) for first, stop in zip(before.tolist(), after.tolist(), strict=True)]

    def _locate(self, batch: int) -> tuple[int, int]:
        """Return the pass that holds a global batch, and its place among the pass's turns."""
        # The pass does not begin later than its share of all batches, but it may begin some turns earlier.
        number = batch * self.global_batch_size // int(self._counts.sum())
        while self._turns_before(number + 1) <= batch:
            number += 1
        return number, batch - self._turns_before(number)

    def _progress(self, batch: int) -> Rows:
        """Return how many batches each stream has had before a global batch."""
        number, place = self._locate(batch)
        turns = np.bincount(self._pass(number)[0][:place], minlength=len(self.streams))
        return self._batches_before(number) + turns

    def _batches_before(self, number: int) -> Rows:
        batches: Rows = self._counts * number // self.global_batch_size
        return batches

    def _turns_before(self, number: int) -> int:
        return int(self._batches_before(number).sum())

    def _make_pass(self, number: int) -> tuple[Rows, Rows]:
        """Return whose turn each of a pass is, and which of the stream's batches."""
        begins, ends = self._batches_before(number), self._batches_before(number + 1)
        in_order = np.repeat(np.arange(len(begins)), ends - begins)
        streams = in_order[permutation(len(in_order), self._seed, number, _TURNS, 0)]
        numbers = np.empty_like(streams)
        for stream, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            numbers[streams == stream] = np.arange(begin, end)
        return streams, numbers
