"""The loader of a training that encodes its pictures meanwhile: blocks are asked for ahead of need, a bounded number.

Asks encoders for blocks of latents; writes nothing. What it yields is what loader.py yields from the latents
that Encode would have written: the order and every random number depend on the seed and the positions alone, never on
which encoder was faster. Back-pressure: a rank asks for a new block only when one of its `blocks_ahead` has arrived and
been taken, so encoders wait when training is slow, and nothing piles up.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from steps.data.latents.block import Array
from steps.data.latents.order import Rows, SampleOrder
from steps.data.loading.batch_ring import LoadedBatch
from steps.data.loading.block_reader import MAX_LOST_FRACTION
from steps.data.loading.loader import Share
from steps.errors import StepError

if TYPE_CHECKING:
    from steps.data.loading.online_encoder import Encoder

# Batches put together ahead of training, each by the one thread that talks to the encoders.
PREFETCHED_BATCHES: Final = 2

Tensors = dict[str, Array]


@dataclass(frozen=True)
class Need:
    """What one batch of a rank needs."""

    first_position: int
    """Of the training stream."""
    blocks: Rows
    """[rows]: block of each row."""
    places: Rows
    """[rows]: place of each row in its block."""
    missing: tuple[int, ...]
    """Blocks to be had before the batch, in order."""
    forgotten: tuple[int, ...]
    """Blocks that make room for them."""


def kept_blocks(order: SampleOrder, slice_rows: int) -> int:
    """Return how many blocks a rank has in use at once for `slice_rows` neighbouring rows of each global batch."""
    lane_rows = order.global_batch_size // order.lanes
    lanes = min(order.lanes, -(-slice_rows // lane_rows) + 1)
    # A lane holds one window; its border, and the seam of two epochs, can put another one into the same slice.
    return 2 * lanes * order.window_blocks


def schedule(order: SampleOrder, block_rows: Rows, slices: Iterable[tuple[int, int]], capacity: int) -> Iterator[Need]:
    """Yield what each slice (first position, rows) needs, with at most `capacity` blocks kept besides its own.

    A pure function of order and positions. The blocks used last are kept: memory is bounded, and whoever makes the
    blocks knows beforehand what comes next.
    """
    first_rows = np.cumsum(block_rows) - block_rows
    kept: OrderedDict[int, None] = OrderedDict()
    for first, count in slices:
        rows = order.rows(first, count)
        blocks = np.searchsorted(first_rows, rows, side="right") - 1
        # In the order in which the batch has them: the same on every machine.
        wanted = list(dict.fromkeys(blocks.tolist()))
        missing = tuple(block for block in wanted if block not in kept)
        for block in wanted:
            kept[block] = None
            kept.move_to_end(block)
        forgotten = tuple(kept.popitem(last=False)[0] for _ in range(len(kept) - max(capacity, len(wanted))))
        yield Need(first, blocks, rows - first_rows[blocks], missing, forgotten)


class BlockLostError(StepError):
    """A block cannot be made, by any encoder: its pictures are at fault."""


class OnlineLoader:
    """Batches of one rank, from blocks that encoders make while training goes on."""

    def __init__(
        self,
        source: RayBlocks,
        order: SampleOrder,
        block_rows: Rows,
        share: Share,
        blocks_ahead: int,
        max_lost_fraction: float = MAX_LOST_FRACTION,
    ) -> None:
        """Say what to load; nothing is asked for before iteration. Raises ValueError as Share.check does."""
        share.check(order.global_batch_size)
        self._source, self._order, self._block_rows, self._share = source, order, block_rows, share
        self._blocks_ahead, self._max_lost_rows = blocks_ahead, max_lost_fraction * int(block_rows.sum())
        self._quarantined: set[int] = set()

    @property
    def lost_samples(self) -> int:
        """Samples of blocks that could not be made, for which others stand in."""
        return int(sum(self._block_rows[block] for block in self._quarantined))

    def __len__(self) -> int:
        return (self._share.last_position - self._share.first_position) // self._order.global_batch_size

    def __iter__(self) -> Iterator[LoadedBatch]:
        """Yield the batches. An error of an encoder is raised here."""
        batches = self._batches()
        with ThreadPoolExecutor(1, thread_name_prefix="online-loader") as pool:
            ready: deque[Future[LoadedBatch | None]] = deque()
            try:
                while True:
                    while len(ready) < PREFETCHED_BATCHES:
                        ready.append(pool.submit(next, batches, None))
                    batch = ready.popleft().result()
                    if batch is None:
                        return
                    yield batch
            finally:
                pool.shutdown(cancel_futures=True)

    def _batches(self) -> Iterator[LoadedBatch]:
        order = self._order
        slice_rows = order.global_batch_size // self._share.world_size
        parts = self._share.parts(order.global_batch_size)
        needs, ahead = itertools.tee(schedule(order, self._block_rows, parts, kept_blocks(order, slice_rows)))
        coming = self._arriving(need.missing for need in ahead)
        kept: dict[int, Tensors] = {}
        for need in needs:
            for block in need.forgotten:
                kept.pop(block, None)
            for block in need.missing:
                kept[block] = next(coming)
            yield _gather(need, kept)

    def _arriving(self, missing: Iterable[tuple[int, ...]]) -> Iterator[Tensors]:
        """Yield blocks in the order of need; no more than `blocks_ahead` are asked for and not yet here."""
        blocks, asked = itertools.chain.from_iterable(missing), deque[tuple[int, Any]]()
        while True:
            for block in itertools.islice(blocks, self._blocks_ahead - len(asked)):
                asked.append((block, self._source.ask(block)))
            if not asked:
                return
            yield self._taken(*asked.popleft())

    def _taken(self, block: int, ticket: Any) -> Tensors:
        try:
            return self._source.take(ticket)
        except BlockLostError as error:
            return self._stand_in(block, str(error))

    def _stand_in(self, block: int, reason: str) -> Tensors:
        """Return the rows of the next block that can be made, over and over where that has fewer."""
        count, wanted = len(self._block_rows), int(self._block_rows[block])
        for other in ((block + step) % count for step in range(1, count)):
            self._quarantine((other - 1) % count, reason)
            try:
                tensors = self._source.take(self._source.ask(other))
            except BlockLostError as error:
                reason = str(error)
                continue
            return {name: np.resize(tensor, (wanted, *tensor.shape[1:])) for name, tensor in tensors.items()}
        raise StepError(f"online encoding: no block can be made: {reason}")

    def _quarantine(self, block: int, reason: str) -> None:
        if block not in self._quarantined:
            self._quarantined.add(block)
            rows = int(self._block_rows[block])
            print(f"QUARANTINE block {block}: {reason}; {rows} samples lost, {self.lost_samples} in all", flush=True)
        if self.lost_samples > self._max_lost_rows:
            raise StepError(
                f"online encoding: {self.lost_samples} of {int(self._block_rows.sum())} samples cannot be encoded, the "
                f"last in block {block} ({reason}); run download again to make those shards anew"
            )


def _gather(need: Need, kept: dict[int, Tensors]) -> LoadedBatch:
    """Return a batch of the rows that it needs, in their order."""
    tensors: dict[str, torch.Tensor] = {}
    for name, example in kept[int(need.blocks[0])].items():
        out = np.empty((len(need.blocks), *example.shape[1:]), example.dtype)
        for block in np.unique(need.blocks).tolist():
            rows = np.flatnonzero(need.blocks == block)
            out[rows] = kept[block][name][need.places[rows]]
        tensors[name] = torch.from_numpy(out)
    positions = torch.arange(need.first_position, need.first_position + len(need.blocks))
    return LoadedBatch(positions, **tensors)


class RayBlocks:
    """Blocks from the encoders of the Ray cluster that this process is connected to."""

    def __init__(self, encoders: Sequence[Encoder], block_rows: Rows) -> None:
        """Raises StepError where there is no encoder."""
        if not encoders:
            raise StepError("online encoding: the job has no encoder; look at the log of the encoders' hosts")
        self._encoders, self._block_rows = encoders, block_rows
        self._first_rows = np.cumsum(block_rows) - block_rows
        self._asked = [0] * len(encoders)
        self._waited_s = 0.0

    def ask(self, block: int) -> tuple[int, Any]:
        """Ask the encoder with the fewest open requests of this rank; ties go around."""
        least = min(self._asked)
        turns = ((block + step) % len(self._encoders) for step in range(len(self._encoders)))
        chosen = next(number for number in turns if self._asked[number] == least)
        self._asked[chosen] += 1
        first_row, rows = int(self._first_rows[block]), int(self._block_rows[block])
        return chosen, self._encoders[chosen].ask(first_row, rows)

    def take(self, ticket: tuple[int, Any]) -> Tensors:
        """Return a block, copied out of the object store. Raises BlockLostError, StepError for a lost encoder."""
        import ray

        from steps.data.loading.online_encoder import WAITED_S

        chosen, reference = ticket
        try:
            found: Tensors = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            lost = BlockLostError if isinstance(error.cause, StepError) else StepError
            raise lost(f"encoder {chosen}: {' '.join(str(error.cause or error).split())[-500:]}") from None
        except ray.exceptions.RayError as error:
            raise StepError(f"encoder {chosen} was lost: {' '.join(str(error).split())[-300:]}") from None
        finally:
            self._asked[chosen] -= 1
        self._waited_s += float(found[WAITED_S])
        return {name: np.array(tensor) for name, tensor in found.items() if name != WAITED_S}

    def take_waited_s(self) -> float:
        """Return for how long encoders had nothing to do before this rank's requests, since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    @property
    def encoders(self) -> int:
        """How many there are."""
        return len(self._encoders)
