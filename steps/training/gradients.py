"""Gradients over ranks: summed during the backward pass, and only in the last accumulation step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from params.programs import TrainArguments
from steps.training.flat_buffers import FlatBuffer
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
    beside whole matrices for Muon. Only the wait for the last gradients is time lost to communication: the others
    travel during the backward pass.
    """

    def __init__(self, state: TrainingState, world: World, arguments: TrainArguments, passes: int = 1) -> None:
        """Prepare for so many passes in a step; CUDA graphs reuse the memory of the gradients."""
        self._state, self._device, self._in_place = state, world.device, arguments.cuda_graphs
        self._compressed = arguments.gradient_compression == "bfloat16"
        # A CUDA graph runs normally once, is recorded in the second pass, and replayed from the third on.
        self.warm_up_passes = 3 if self._in_place else 1
        self._sends = False
        self._ready = {buffer: set[int]() for buffer in state.buffers}
        self._sent: list[tuple[FlatBuffer, Tensor, Any]] = []
        self._last_sent: Mark | None = None
        self._waits: list[tuple[Mark, Mark]] = []
        for parameter in state.parameters if self._in_place and not state.buffers else ():
            parameter.grad = torch.zeros_like(parameter)
        self.forward: Any = state.network
        self._ddp: Any = None
        for buffer in state.buffers:
            # Weights are the same on every rank; should they not be, the head's count. DDP does the same.
            dist.broadcast(buffer.weights, 0)
            for place, parameter in buffer.parameters.items():
                hooked: Any = parameter
                hooked.register_post_accumulate_grad_hook(partial(self._note, buffer, place))
        if world.size > 1 and not state.buffers:
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

    def clear(self) -> None:
        """Reset all gradients for the next step."""
        for buffer in self._state.buffers:
            buffer.gradients.zero_()
        if not self._state.buffers:
            self._state.network.zero_grad(set_to_none=not self._in_place)

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Run both passes inside: only the last of a step sends gradients."""
        self._sends = last
        with nullcontext() if last or self._ddp is None else self._ddp.no_sync():
            yield

    def note_end(self) -> None:
        """Note that the backward pass is complete, and wait for the sums; a weight without a gradient adds zeros."""
        for buffer, ready in self._ready.items() if self._sends else ():
            if len(ready) < len(buffer.parameters):
                self._send(buffer)
            ready.clear()
        for buffer, flat, work in self._sent:
            work.wait()
            if flat is not buffer.gradients:
                buffer.gradients.copy_(flat)
        self._sent.clear()
        if self._last_sent is not None:
            self._waits.append((self._last_sent, mark(self._device)))
            self._last_sent = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as lost to communication, where the ranks divide the state."""
        start = mark(self._device)
        yield
        if self._state.buffers:
            self._waits.append((start, mark(self._device)))

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
        self._last_sent, flat = mark(self._device), bucket.buffer()
        work: Any = dist.all_reduce(self._as_sent(flat), async_op=True)
        # Torch's bf16_compress_hook writes it back in place, too.
        summed: torch.futures.Future[Tensor] = work.get_future().then(lambda future: flat.copy_(future.value()[0]))
        return summed

    def _as_sent(self, gradients: Tensor) -> Tensor:
        return gradients.to(torch.bfloat16) if self._compressed else gradients

    def _note(self, buffer: FlatBuffer, place: int, parameter: Tensor) -> None:
        """Note that a gradient is there."""
        if self._sends:
            self._ready[buffer].add(place)
            if len(self._ready[buffer]) == len(buffer.parameters):
                self._send(buffer)

    def _send(self, buffer: FlatBuffer) -> None:
        flat = self._as_sent(buffer.gradients)
        if buffer.whole:
            work = dist.all_reduce(flat, async_op=True)
        else:
            work = dist.reduce_scatter_single(buffer.own(flat), flat, async_op=True)
        self._last_sent = mark(self._device)
        self._sent.append((buffer, flat, work))
