"""Gradients over ranks: summed during the backward pass, and only in the last accumulation step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from params.programs import TrainArguments
from steps.training.ranks import World
from steps.training.state import TrainingState

Mark = float | torch.cuda.Event


def mark(device: torch.device) -> Mark:
    """Return the current time, in the order of the device's work."""
    if device.type != "cuda":
        return time.perf_counter()
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def elapsed_s(start: Any, end: Any) -> float:
    """Return seconds between two marks of one device; a GPU must have passed both."""
    return float(end - start if isinstance(end, float) else start.elapsed_time(end) / 1000.0)


class Gradients:
    """The network as the forward pass calls it, and the sum of its gradients over the ranks.

    The loss of a rank is divided by the global batch, so that the sum is the gradient whatever the number of ranks.
    DDP brings every rank the whole sum. Where each keeps a part of the state it gets the sum of its pieces alone,
    beside buckets with matrices for Muon. Only the wait for the last gradients is time lost to communication: the
    others travel during the backward pass.
    """

    def __init__(self, state: TrainingState, world: World, arguments: TrainArguments, passes: int = 1) -> None:
        """Prepare for so many passes in a step; CUDA graphs reuse the memory of the gradients."""
        self._state, self._world, self._in_place = state, world, arguments.cuda_graphs
        self._compressed = arguments.gradient_compression == "bfloat16"
        # The second pass records a CUDA graph, the third replays it. By then DDP has laid its buckets out in the order
        # in which gradients come: in which order numbers are added up depends on where they lie.
        self.warm_up_passes = 3 if self._in_place or world.size > 1 else 1
        self._buckets: dict[int, list[int]] = {}
        self._is_settled = False
        self._sent: list[tuple[Tensor, Tensor, Any]] = []
        self._last_sent: Mark | None = None
        self._waits: list[tuple[Mark, Mark]] = []
        for parameter in state.parameters if self._in_place else ():
            parameter.grad = torch.zeros_like(parameter)
        self.forward: Any = state.network
        self._ddp: Any = None
        if world.size > 1:
            self._ddp = self.forward = DistributedDataParallel(
                state.network,
                device_ids=[world.local_rank] if world.device.type == "cuda" else None,
                forward_sync_buffers=False,
                bucket_cap_mb=arguments.gradient_bucket_mb,
                gradient_as_bucket_view=True,
                # A static graph forbids no_sync in DDP's first pass.
                static_graph=passes == 1,
            )
            self._ddp.register_comm_hook(None, self._sum)

    def settle(self) -> None:
        """After `warm_up_passes` of all of a step's passes: DDP's buckets stay, and the ranks may divide the state."""
        self._is_settled = True
        self._state.divide(list(self._buckets.values()))
        self.take_waited_s()
        self.clear()

    def clear(self) -> None:
        """Reset all gradients for the next step."""
        self._state.network.zero_grad(set_to_none=not self._in_place)

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Run both passes inside: only the last of a step sends gradients."""
        with nullcontext() if last or self._ddp is None else self._ddp.no_sync():
            yield

    def note_end(self) -> None:
        """Note that the backward pass is complete, and wait for the sums."""
        for gradients, sent, work in self._sent:
            work.wait()
            if sent.data_ptr() != gradients.data_ptr():
                gradients.copy_(sent[: len(gradients)])
        self._sent.clear()
        if self._last_sent is not None:
            self._waits.append((self._last_sent, mark(self._world.device)))
            self._last_sent = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as lost to communication, where the ranks divide the state."""
        start = mark(self._world.device)
        yield
        if self._state.pieces:
            self._waits.append((start, mark(self._world.device)))

    def take_waited_s(self) -> float:
        """Return the seconds waited since the last call; a GPU must have finished the steps until now."""
        waits, self._waits = self._waits, []
        return sum(elapsed_s(start, end) for start, end in waits)

    def _sum(
        self,
        state: object,
        bucket: dist.GradBucket,  # type: ignore[name-defined]
    ) -> torch.futures.Future[Tensor]:
        """Send a bucket: DDP's communication hook. It adds up, where DDP itself and torch's own hooks average."""
        self._last_sent, flat = mark(self._world.device), bucket.buffer()
        places = [self._state.places[id(parameter)] for parameter in bucket.parameters()]
        if self._is_settled and self._buckets.get(bucket.index()) != places:
            raise RuntimeError(f"DDP's bucket {bucket.index()} holds other gradients than in the first passes")
        self._buckets[bucket.index()] = places
        sent, own = flat.to(torch.bfloat16) if self._compressed else flat, slice(None)
        if self._state.divided and self._state.muon.isdisjoint(places):
            if missing := -len(flat) % self._world.size:
                sent = torch.nn.functional.pad(sent, (0, missing))
            size = len(sent) // self._world.size
            own = slice(self._world.rank * size, (self._world.rank + 1) * size)
            work: Any = dist.reduce_scatter_single(sent[own], sent, async_op=True)
        else:
            work = dist.all_reduce(sent, async_op=True)
        self._sent.append((flat[own], sent[own], work))
        # Gloo tells DDP of no end of a reduce-scatter: `note_end` waits for both kinds.
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(flat)
        return done
