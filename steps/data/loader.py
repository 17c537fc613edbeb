"""The training loader: a rank's slice of every global batch, read ahead in the background.

Reads latents blocks through steps.data.latents; writes nothing. What it yields is a pure function of the order and the
positions: stop anywhere, start again with any number of ranks, and every position is seen once, in the same global
order. Every rank gets the same number of batches.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from steps.data.latents import LatentsBatch, LatentsDataset, batch_arrays
from steps.data.order import SampleOrder

# Batches ready ahead of training: a window of blocks that opens in every lane at once delays one batch, not training.
PREFETCHED_BATCHES: Final = 4
HELD_BATCHES: Final = 2
_POLL_S: Final = 0.1


@dataclass(frozen=True)
class LoadedBatch:
    """A rank's slice of one global batch.

    Its memory is used again for the batch after the next, so that a copy to the GPU may still be under way when the
    next batch is asked for.
    """

    positions: torch.Tensor
    """[rows] int64: positions of the training stream."""
    mean: torch.Tensor
    """[rows, C, H, W] float16: posterior mean, unscaled; in pinned memory where there is a GPU."""
    std: torch.Tensor
    """[rows, C, H, W] float16: posterior standard deviation, unscaled."""
    token_ids: torch.Tensor
    """[rows, caption length] int32."""
    embeddings: torch.Tensor | None
    """[rows, caption length, width] float16, where they are cached."""


@dataclass(frozen=True)
class _Slot:
    positions: torch.Tensor
    batch: LatentsBatch


class LatentsLoader:
    """Batches of one rank for positions [first_position, last_position) of the training stream."""

    def __init__(
        self,
        dataset: LatentsDataset,
        order: SampleOrder,
        global_batch_size: int,
        rank: int,
        world_size: int,
        first_position: int,
        last_position: int,
        split: str = "train",
        pin_memory: bool | None = None,
    ) -> None:
        """Say what to load; nothing is read before iteration.

        Raises ValueError where a global batch, or what is left for the last one, does not divide among the ranks:
        then the ranks would not do the same number of steps.
        """
        rest = (last_position - first_position) % global_batch_size
        if global_batch_size % world_size or rest % world_size:
            raise ValueError(
                f"global_batch_size: {global_batch_size} samples, and {rest} in the last batch, "
                f"must divide among {world_size} ranks"
            )
        if not 0 <= rank < world_size or not 0 <= first_position <= last_position:
            raise ValueError(f"no rank {rank} of {world_size}, or no positions {first_position} to {last_position}")
        self._dataset, self._order, self._split = dataset, order, split
        self._global_batch_size, self._rank, self._world_size = global_batch_size, rank, world_size
        self._first_position, self._last_position = first_position, last_position
        self._pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.lost_samples = 0
        """Samples of this rank's blocks that could not be read, for which others stand in."""

    def __len__(self) -> int:
        return -(-(self._last_position - self._first_position) // self._global_batch_size)

    def __iter__(self) -> Iterator[LoadedBatch]:
        """Yield the batches. An error of the background thread is raised here."""
        run = _Run(self)
        try:
            yield from run.batches()
        finally:
            run.stop()

    def slices(self) -> Iterator[tuple[int, int]]:
        """Yield (first position, count) of this rank's slice of each global batch."""
        for start in range(self._first_position, self._last_position, self._global_batch_size):
            count = min(self._global_batch_size, self._last_position - start) // self._world_size
            yield start + self._rank * count, count


class _Run:
    """One iteration: a background thread that fills slots, and slots that come back."""

    def __init__(self, loader: LatentsLoader) -> None:
        self._loader = loader
        self._ready: queue.Queue[tuple[_Slot, int] | BaseException | None] = queue.Queue()
        self._free: queue.Queue[_Slot] = queue.Queue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="latents-loader", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[LoadedBatch]:
        held: list[_Slot] = []
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            slot, count = item
            held.append(slot)
            if len(held) > HELD_BATCHES:
                self._free.put(held.pop(0))
            parts = [None if tensor is None else tensor[:count] for tensor in slot.batch]
            yield LoadedBatch(slot.positions[:count], *parts)  # type: ignore[arg-type]

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            self._fill()
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _fill(self) -> None:
        loader = self._loader
        rows_per_slot = loader._global_batch_size // loader._world_size
        reader = loader._dataset.reader(loader._split, loader._order.working_set_blocks(rows_per_slot))
        try:
            for _ in range(min(len(loader), PREFETCHED_BATCHES + HELD_BATCHES)):
                batch = loader._dataset.empty_batch(loader._split, rows_per_slot, loader._pin_memory)
                self._free.put(_Slot(torch.empty(rows_per_slot, dtype=torch.int64), batch))
            for first, count in loader.slices():
                slot = self._next_slot()
                if slot is None:
                    return
                out = {name: array[:count] for name, array in batch_arrays(slot.batch).items()}
                reader.read_into(loader._order.rows(first, count), out)
                slot.positions[:count] = torch.from_numpy(np.arange(first, first + count))
                loader.lost_samples = reader.lost_rows
                self._ready.put((slot, count))
        finally:
            reader.close()

    def _next_slot(self) -> _Slot | None:
        while not self._stopped.is_set():
            try:
                return self._free.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None
