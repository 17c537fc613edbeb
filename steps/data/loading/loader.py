"""The training loader: a rank's slice of every global batch, loaded ahead in the background.

Gets blocks from shards (block_reader) or from encoders (online); writes nothing. What it yields is a pure
function of the order and the positions: stop after any batch, start again with any number of ranks and threads, and
every position is seen once, in the same global order. Every rank gets the same number of batches, and all ranks at a
time batches of one bucket: rows of one shape.

A block is had once, and its rows are copied once: to their places in the batches to come, which the order tells
beforehand.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import torch

from steps.data.latents.order import Stretch
from steps.data.loading.batch_ring import BatchRing, LoadedBatch
from steps.data.loading.blocks import Blocks
from steps.data.loading.bucket_order import BucketStream, TrainingOrder, Turn

# Batches loaded ahead of training: windows of blocks that open in every lane at once delay one of them, not training.
PREFETCHED_BATCHES: Final = 8
HELD_BATCHES: Final = 2
# Blocks are read side by side: Lustre and S3 answer many requests at once. Eight cost up to 0.3 more CPU, in caches.
READ_THREADS: Final = 4


@dataclass(frozen=True)
class Share:
    """Which part of the training stream a rank loads."""

    rank: int
    world_size: int
    first_position: int
    last_position: int
    """The first position that is not loaded."""

    def check(self, global_batch_size: int) -> None:
        """Raise ValueError unless all ranks get as many rows, of whole global batches: they take the same steps."""
        size, first, last = global_batch_size, self.first_position, self.last_position
        if size % self.world_size:
            raise ValueError(f"global_batch_size: {size} samples must divide among {self.world_size} ranks")
        if first % size or last % size:
            raise ValueError(f"positions {first} to {last} are not batches of {size}")
        if not 0 <= self.rank < self.world_size or not 0 <= first <= last:
            raise ValueError(f"there is no {self}")


class LatentsLoader:
    """Batches of one rank for positions [first_position, last_position) of the training stream."""

    def __init__(
        self,
        blocks: Blocks,
        order: TrainingOrder,
        share: Share,
        *,
        threads: int = READ_THREADS,
        batches_ahead: int = PREFETCHED_BATCHES,
    ) -> None:
        """Say what to load; no block is asked for before iteration. Raises ValueError as Share.check does."""
        size = order.global_batch_size
        share.check(size)
        self.blocks, self.order, self.threads, self.batches_ahead = blocks, order, threads, batches_ahead
        self.batches: Final = range(share.first_position // size, share.last_position // size)
        self.batch_rows: Final = size // share.world_size
        self.first_place: Final = share.rank * self.batch_rows
        """Where in each global batch this rank's slice begins."""
        self.pin_memory: Final = torch.cuda.is_available()

    def unreadable_blocks(self) -> torch.Tensor:
        """Return [blocks] int32: 1 where this rank could not read the block."""
        unreadable = torch.zeros(len(self.blocks.table.rows), dtype=torch.int32)
        unreadable[list(self.blocks.quarantined)] = 1
        return unreadable

    def samples_in(self, blocks: torch.Tensor) -> int:
        """Return how many samples lie in the blocks whose entry is not 0: each once, however many ranks met it."""
        return int(self.blocks.table.rows[blocks.numpy() > 0].sum())

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[LoadedBatch]:
        """Yield the batches. Each is asked for ahead of need; an error of a thread is raised here."""
        order, turns = self.order, deque[Turn]()
        coming = map(order.turn, self.batches)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="latents") as pool:
            numbers = order.numbers(self.batches)
            streams = [_Stream(self, pool, *one) for one in zip(order.streams, numbers, strict=True)]
            try:
                for number in self.batches:
                    for turn in islice(coming, self.batches_ahead + 1 - len(turns)):
                        streams[turn.stream].ask(turn.number)
                        turns.append(turn)
                    turn = turns.popleft()
                    first_position = number * order.global_batch_size + self.first_place
                    yield streams[turn.stream].batch(turn.number, first_position)
            finally:
                pool.shutdown(cancel_futures=True)


class _Stream:
    """One bucket's batches, which have a ring of their own: reads stretches as their batches come near."""

    def __init__(self, loader: LatentsLoader, pool: ThreadPoolExecutor, bucket: BucketStream, numbers: range) -> None:
        """Prepare batches `numbers` of the stream."""
        self._loader, self._pool, self._bucket, self._numbers = loader, pool, bucket, numbers
        order = bucket.order
        depth = min(len(numbers), order.stretch_batches + loader.batches_ahead + HELD_BATCHES)
        self._ring = BatchRing(loader.blocks.fields[bucket.bucket], depth, loader.batch_rows, loader.pin_memory)
        first_lane = loader.first_place // order.lane_rows
        last_lane = (loader.first_place + loader.batch_rows - 1) // order.lane_rows
        self._lanes = {lane: order.stretches(lane, numbers.start) for lane in range(first_lane, last_lane + 1)}
        self._due: list[tuple[int, int, Stretch]] = []
        """Of each lane: the first batch that needs its next stretch, the lane, and the stretch."""
        for lane in self._lanes:
            self._advance(lane)
        self._reading: deque[tuple[int, Future[None]]] = deque()

    def ask(self, number: int) -> None:
        """Have read what the batches up to this one need."""
        while self._due and self._due[0][0] <= number:
            batch, lane, stretch = heapq.heappop(self._due)
            self._advance(lane)
            self._reading.append((batch, self._pool.submit(self._load, stretch)))

    def batch(self, number: int, first_position: int) -> LoadedBatch:
        """Return a batch that was asked for, when it is read."""
        while self._reading and self._reading[0][0] <= number:
            self._reading.popleft()[1].result()
        return self._ring.batch(number, first_position)

    def _advance(self, lane: int) -> None:
        """Take the lane's next stretch that this rank has a share of: at its ends, other ranks may share a lane."""
        for stretch in self._lanes[lane]:
            if stretch.batches[0] >= self._numbers.stop:
                return
            own = self._own(stretch)
            if len(own.rows):
                heapq.heappush(self._due, (int(own.batches[0]), lane, own))
                return

    def _own(self, stretch: Stretch) -> Stretch:
        places = stretch.places - self._loader.first_place
        own = (places >= 0) & (places < self._loader.batch_rows) & (stretch.batches < self._numbers.stop)
        return Stretch(stretch.blocks, stretch.rows[own], stretch.batches[own], places[own])

    def _load(self, stretch: Stretch) -> None:
        table, rows = self._loader.blocks.table, stretch.rows + self._bucket.first_row
        ring_rows = self._ring.rows(stretch.batches, stretch.places)
        for block in (self._bucket.first_block + number for number in stretch.blocks):
            inside = rows - table.first_rows[block]
            own = (inside >= 0) & (inside < table.rows[block])
            if own.any():
                targets = np.full(table.rows[block], -1, np.int64)
                targets[inside[own]] = ring_rows[own]
                with self._loader.blocks.read(block) as tensors:
                    self._ring.put(tensors, targets)
