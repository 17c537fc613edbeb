"""Gradients over ranks: summed during the backward pass, and only in the last accumulation step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

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
    """The gradients of a state's weights, and their sum over the ranks as soon as the last of a buffer is there.

    The loss of a rank is divided by the global batch, so that the sum is the gradient whatever the number of ranks.
    Where every rank steps its own piece, it gets the sum of that piece alone. Where each steps everything, the same
    sums are brought together: so the bits do not depend on who steps what. Only the wait after the backward pass is
    time lost to communication.
    """

    def __init__(self, state: TrainingState, world: World, in_place: bool = False, compressed: bool = False) -> None:
        """Prepare; `in_place` keeps one rank's gradients in their memory: CUDA graphs reuse it.

        `compressed`: they travel, and are added up, in bfloat16.
        """
        self._state, self._device, self._in_place, self._compressed = state, world.device, in_place, compressed
        # A CUDA graph runs normally once, is recorded in the second pass, and replayed from the third on.
        self.warm_up_passes = 3 if in_place else 1
        self.sends = False
        """Whether the gradients of the pass are the last of a step."""
        self._ready = {buffer: set[int]() for buffer in state.buffers}
        self._sent: list[tuple[FlatBuffer, Tensor, Any]] = []
        self._waits: list[tuple[Mark, Mark]] = []
        for parameter in state.parameters if in_place and not state.buffers else ():
            parameter.grad = torch.zeros_like(parameter)
        for buffer in state.buffers:
            # Weights are the same on every rank; should they not be, the head's count.
            dist.broadcast(buffer.weights, 0)
            for place, parameter in buffer.parameters.items():
                hooked: Any = parameter
                hooked.register_post_accumulate_grad_hook(partial(self._note, buffer, place))

    def clear(self) -> None:
        """Reset all gradients for the next step."""
        for buffer in self._state.buffers:
            buffer.gradients.zero_()
        if not self._state.buffers:
            self._state.network.zero_grad(set_to_none=not self._in_place)

    def note_end(self) -> None:
        """Note that the backward pass is complete, and wait for the sums; a parameter without a gradient adds zeros."""
        for buffer, ready in self._ready.items() if self.sends else ():
            if len(ready) < len(buffer.parameters):
                self._send(buffer)
            ready.clear()
        with self.waiting():
            for buffer, flat, work in self._sent:
                work.wait()
                if flat is not buffer.gradients:
                    buffer.gradients.copy_(flat)
        self._sent.clear()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as lost to communication."""
        start = mark(self._device)
        yield
        if self._state.buffers:
            self._waits.append((start, mark(self._device)))

    def take_waited_s(self) -> float:
        """Return the seconds waited since the last call; a GPU must have finished the steps until now."""
        waits, self._waits = self._waits, []
        return sum(elapsed_s(start, end) for start, end in waits)

    def _note(self, buffer: FlatBuffer, place: int, parameter: Tensor) -> None:
        """Note that a gradient is there."""
        if self.sends:
            self._ready[buffer].add(place)
            if len(self._ready[buffer]) == len(buffer.parameters):
                self._send(buffer)

    def _send(self, buffer: FlatBuffer) -> None:
        flat = buffer.gradients.to(torch.bfloat16) if self._compressed else buffer.gradients
        if buffer.whole and self._device.type == "cpu":
            # Gloo's reduce-scatter is this, without the rest of the sum.
            work = dist.all_reduce(flat, async_op=True)
        else:
            work = dist.reduce_scatter_single(buffer.own(flat), flat, async_op=True)
            if buffer.whole:
                # NCCL runs one after the other.
                work = dist.all_gather_single(flat, buffer.own(flat), async_op=True)
        self._sent.append((buffer, flat, work))
