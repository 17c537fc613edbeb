"""In which order training sees the rows: a pure function of (seed, position).

Positions 0, 1, 2, ... are the endless stream of training; position p lies in epoch p // count, and every epoch holds
every row exactly once. Nothing depends on the number of ranks, on workers, or on where a run was interrupted.

An epoch is made in two stages, so that memory and disk see whole blocks. First the blocks are permuted, cut into
windows of a few blocks, and the rows of each window are permuted. Then that sequence is cut into lanes: a global batch
takes the same number of rows from every lane, and a rank's slice of it is a few lanes. So a rank reads its own blocks,
each whole and (but for those on a lane's border) once, while each batch mixes rows from all over the data set.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from params.divisors import largest_divisor

Rows = npt.NDArray[np.int64]

# More lanes mix better and serve more ranks without sharing; each rank holds lanes / ranks x window_blocks blocks. They
# are part of the order: a training that goes on needs those that it began with.
MAX_LANES: Final = 256
WINDOW_BLOCKS: Final = 2

_BLOCKS, _ROWS = 0, 1


@dataclass(frozen=True)
class Stretch:
    """Neighbours of one lane that one window holds: what is loaded together."""

    blocks: tuple[int, ...]
    """The window's blocks: these and no others hold the rows."""
    rows: Rows
    """[n]: the rows, in their order."""
    batches: Rows
    """[n]: which global batch of the stream takes each row; never decreasing."""
    places: Rows
    """[n]: at which place of its global batch."""


@dataclass(frozen=True)
class _Epoch:
    blocks: Rows
    """Permuted block numbers."""
    window_starts: Rows
    """Where in the epoch's sequence each window begins; one more for the end."""
    lane_starts: Rows
    """Where in the epoch's sequence each lane begins."""
    lane_offsets: Rows
    """How many positions each lane has had in earlier epochs."""


class SampleOrder:
    """Rows of a data set of `count` rows for the positions of an endless training stream."""

    def __init__(
        self,
        count: int,
        seed: int,
        *,
        global_batch_size: int = 1,
        block_rows: Sequence[int] | Rows | None = None,
        max_lanes: int = MAX_LANES,
        window_blocks: int = WINDOW_BLOCKS,
        stream: int = 0,
    ) -> None:
        """Prepare the order; streams of one seed are shuffled each in its own way. Raises ValueError for an unfit size.

        `block_rows` are the rows of each block on disk (none: every row is its own block); of lanes there are as many
        as the largest divisor of `global_batch_size` up to `max_lanes`.
        """
        sizes = np.ones(count, np.int64) if block_rows is None else np.asarray(block_rows, np.int64)
        if count < 1 or int(sizes.sum()) != count or int(sizes.min()) < 1:
            raise ValueError(f"blocks of {int(sizes.sum())} rows do not make {count} rows, at least 1 in each")
        if min(global_batch_size, window_blocks, max_lanes) < 1 or seed < 0:
            raise ValueError("global_batch_size, window_blocks and max_lanes must be at least 1, and seed at least 0")
        self.count, self.seed, self.global_batch_size = count, seed, global_batch_size
        self.lanes = largest_divisor(global_batch_size, max_lanes)
        self.window_blocks = window_blocks
        self._stream = (stream,) if stream else ()
        self._sizes = sizes
        self._first_rows = np.cumsum(sizes) - sizes
        self._epoch = lru_cache(2)(self._make_epoch)
        self._window = lru_cache(4 * self.lanes)(self._make_window)

    @property
    def lane_rows(self) -> int:
        """Rows that a global batch takes from each lane."""
        return self.global_batch_size // self.lanes

    @property
    def stretch_batches(self) -> int:
        """Global batches that one stretch spans at most."""
        window_rows = min(self.count, self.window_blocks * int(self._sizes.max()))
        return -(-window_rows // self.lane_rows) + 1

    def stretches(self, lane: int, first_batch: int) -> Iterator[Stretch]:
        """Yield what a lane holds from a global batch on, without end, a window at a time."""
        first_position = first_batch * self.global_batch_size + lane * self.lane_rows
        for epoch in itertools.count(first_position // self.count):
            yield from self._epoch_stretches(lane, epoch, first_batch * self.lane_rows)

    def _epoch_stretches(self, lane: int, epoch: int, first_in_lane: int) -> Iterator[Stretch]:
        state, lane_rows = self._epoch(epoch), self.lane_rows
        offset, next_offset = int(state.lane_offsets[lane]), int(self._lane_positions((epoch + 1) * self.count)[lane])
        shift = int(state.lane_starts[lane]) - offset
        start, stop = max(first_in_lane, offset) + shift, next_offset + shift
        number = int(np.searchsorted(state.window_starts, start, side="right")) - 1
        while start < stop:
            first, end = int(state.window_starts[number]), min(stop, int(state.window_starts[number + 1]))
            in_lane = np.arange(start - shift, end - shift)
            yield Stretch(
                blocks=self._window_blocks(state, number),
                rows=self._window(epoch, number)[start - first : end - first],
                batches=in_lane // lane_rows,
                places=lane * lane_rows + in_lane % lane_rows,
            )
            start, number = end, number + 1

    def _make_epoch(self, epoch: int) -> _Epoch:
        blocks = permutation(len(self._sizes), self.seed, epoch, _BLOCKS, 0, *self._stream)
        ends = np.cumsum(self._sizes[blocks])
        window_ends = np.append(ends[self.window_blocks - 1 : -1 : self.window_blocks], ends[-1])
        offsets = self._lane_positions(epoch * self.count)
        lengths = self._lane_positions((epoch + 1) * self.count) - offsets
        return _Epoch(
            blocks=blocks,
            window_starts=np.concatenate(([0], window_ends)),
            lane_starts=np.cumsum(lengths) - lengths,
            lane_offsets=offsets,
        )

    def _lane_positions(self, position: int) -> Rows:
        """Return how many positions before `position` belong to each lane."""
        lane_rows = self.lane_rows
        batches, rest = divmod(position, self.global_batch_size)
        return batches * lane_rows + np.clip(rest - np.arange(self.lanes) * lane_rows, 0, lane_rows)

    def _make_window(self, epoch: int, number: int) -> Rows:
        """Return the rows of one window in their order, int64 [rows of the window]."""
        first_rows, sizes = self._first_rows, self._sizes
        blocks = self._window_blocks(self._epoch(epoch), number)
        together = np.concatenate([np.arange(first_rows[b], first_rows[b] + sizes[b]) for b in blocks])
        return np.asarray(together[permutation(len(together), self.seed, epoch, _ROWS, number, *self._stream)])

    def _window_blocks(self, state: _Epoch, number: int) -> tuple[int, ...]:
        return tuple(state.blocks[number * self.window_blocks : (number + 1) * self.window_blocks].tolist())


def permutation(n: int, *words: int) -> Rows:
    """Return a permutation of range(n) that only the words decide.

    By sorting raw bits, which numpy promises never to change, as it does not for `Generator.permutation` (NEP 19).
    """
    bits = np.random.Philox(np.random.SeedSequence(words)).random_raw(n)
    return np.argsort(bits, kind="stable").astype(np.int64, copy=False)
