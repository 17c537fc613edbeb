"""The training loader: a rank's slice of every global batch, read ahead in the background.

Reads latents blocks through steps.data.block_reader; writes nothing. What it yields is a pure function of the order and
the positions: stop after any batch, start again with any number of ranks and reading threads, and every position is
seen once, in the same global order. Every rank gets the same number of batches.

A block is read once, checked, and its rows are copied once: to their places in the batches to come, which the order
tells beforehand.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from params.layout import TRAIN_SPLIT
from steps.data.batch_ring import BatchRing, LoadedBatch
from steps.data.block_reader import MAX_LOST_FRACTION, BlockReader
from steps.data.latents import LatentsDataset
from steps.data.order import SampleOrder, Stretch

# Batches read ahead of training: windows of blocks that open in every lane at once delay one of them, not training.
PREFETCHED_BATCHES: Final = 8
HELD_BATCHES: Final = 2
# Blocks are read side by side: Lustre and S3 answer many requests at once.
READ_THREADS: Final = 8

__all__ = ["LatentsLoader", "LoadedBatch"]


@dataclass(frozen=True)
class Share:
    """Which part of the training stream a rank loads."""

    rank: int
    world_size: int
    first_position: int
    last_position: int
    """The first position that is not loaded."""


class LatentsLoader:
    """Batches of one rank for positions [first_position, last_position) of the training stream."""

    def __init__(
        self,
        dataset: LatentsDataset,
        order: SampleOrder,
        share: Share,
        *,
        split: str = TRAIN_SPLIT,
        read_threads: int = READ_THREADS,
        max_lost_fraction: float = MAX_LOST_FRACTION,
        pin_memory: bool | None = None,
    ) -> None:
        """Say what to load; no rows are read before iteration.

        Raises ValueError where the global batch does not divide among the ranks, or the positions are not those of
        whole global batches: then the ranks would not do the same number of steps.
        """
        size = order.global_batch_size
        if size % share.world_size:
            raise ValueError(f"global_batch_size: {size} samples must divide among {share.world_size} ranks")
        if share.first_position % size or share.last_position % size:
            raise ValueError(f"positions {share.first_position} to {share.last_position} are not batches of {size}")
        if not 0 <= share.rank < share.world_size or not 0 <= share.first_position <= share.last_position:
            raise ValueError(f"there is no {share}")
        self.blocks: Final = BlockReader(dataset.files, dataset.table(split), max_lost_fraction)
        self.order: Final = order
        self.batches: Final = range(share.first_position // size, share.last_position // size)
        """Numbers of the global batches."""
        self.batch_rows: Final = size // share.world_size
        self.first_place: Final = share.rank * self.batch_rows
        """Where in each global batch this rank's slice begins."""
        self.read_threads: Final = read_threads
        self.pin_memory: Final = torch.cuda.is_available() if pin_memory is None else pin_memory

    @property
    def lost_samples(self) -> int:
        """Samples of this rank's blocks that could not be read, for which others stand in."""
        return self.blocks.lost_rows

    def unreadable_blocks(self) -> torch.Tensor:
        """Return [blocks] int32: 1 where this rank could not read the block."""
        found = torch.zeros(len(self.blocks.table.rows), dtype=torch.int32)
        found[list(self.blocks.quarantined)] = 1
        return found

    def samples_in(self, blocks: torch.Tensor) -> int:
        """Return how many samples lie in the blocks whose entry is not 0: each once, however many ranks met it."""
        return int(self.blocks.table.rows[blocks.numpy() > 0].sum())

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[LoadedBatch]:
        """Yield the batches. An error of a reading thread is raised here."""
        with ThreadPoolExecutor(self.read_threads, thread_name_prefix="latents") as pool:
            run = _Run(self, pool)
            try:
                for batch in self.batches:
                    yield run.batch(batch)
            finally:
                pool.shutdown(cancel_futures=True)


@dataclass(order=True)
class _Due:
    """A lane's next stretch, and the first batch that needs it."""

    batch: int
    lane: int
    stretch: Stretch = field(compare=False)


class _Run:
    """One iteration: reads stretches as their batches come near."""

    def __init__(self, loader: LatentsLoader, pool: ThreadPoolExecutor) -> None:
        self._loader, self._pool = loader, pool
        order, batches = loader.order, loader.batches
        depth = min(len(batches), order.stretch_batches + PREFETCHED_BATCHES + HELD_BATCHES)
        self._ring = BatchRing(loader.blocks.fields, depth, loader.batch_rows, loader.pin_memory)
        first_lane = loader.first_place // order.lane_rows
        last_lane = (loader.first_place + loader.batch_rows - 1) // order.lane_rows
        self._lanes = {lane: order.stretches(lane, batches.start) for lane in range(first_lane, last_lane + 1)}
        self._due: list[_Due] = []
        for lane in self._lanes:
            self._advance(lane)
        self._reading: deque[tuple[int, Future[None]]] = deque()

    def batch(self, number: int) -> LoadedBatch:
        """Return a batch; what it needs is waited for, and what the next ones need is asked for."""
        while self._due and self._due[0].batch <= number + PREFETCHED_BATCHES:
            due = heapq.heappop(self._due)
            self._advance(due.lane)
            self._reading.append((due.batch, self._pool.submit(self._load, due.stretch)))
        while self._reading and self._reading[0][0] <= number:
            self._reading.popleft()[1].result()
        first_position = number * self._loader.order.global_batch_size + self._loader.first_place
        return self._ring.batch(number, first_position)

    def _advance(self, lane: int) -> None:
        """Take the lane's next stretch that this rank has a share of: at its ends, other ranks may share a lane."""
        for stretch in self._lanes[lane]:
            if stretch.batches[0] >= self._loader.batches.stop:
                return
            own = self._own(stretch)
            if len(own.rows):
                heapq.heappush(self._due, _Due(int(own.batches[0]), lane, own))
                return

    def _own(self, stretch: Stretch) -> Stretch:
        places = stretch.places - self._loader.first_place
        own = (places >= 0) & (places < self._loader.batch_rows) & (stretch.batches < self._loader.batches.stop)
        return Stretch(stretch.blocks, stretch.rows[own], stretch.batches[own], places[own])

    def _load(self, stretch: Stretch) -> None:
        table = self._loader.blocks.table
        ring_rows = self._ring.rows(stretch.batches, stretch.places)
        for block in stretch.blocks:
            inside = stretch.rows - table.first_rows[block]
            own = (inside >= 0) & (inside < table.rows[block])
            if own.any():
                targets = np.full(table.rows[block], -1, np.int64)
                targets[inside[own]] = ring_rows[own]
                with self._loader.blocks.read(block) as tensors:
                    self._ring.put(tensors, targets)
