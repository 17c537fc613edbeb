"""Gradients over ranks: summed during the backward pass, and only in the last accumulation step."""

# The annotations stay classes: DDP compares the hook's with them.
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from steps.training.ranks import World

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


class GradientSum:
    """DDP's communication hook: sums each bucket of gradients (DDP itself would average them).

    The loss of a rank is divided by the global batch, so that the sum is the gradient whatever the number of ranks.
    Only the wait after the last bucket is time lost to communication: the others travel during the backward pass.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last_bucket: Mark | None = None
        self._waits: list[tuple[Mark, Mark]] = []

    def reduce(
        self,
        state: object,
        bucket: dist.GradBucket,  # type: ignore[name-defined]
    ) -> torch.futures.Future[Tensor]:
        """Send a bucket."""
        self._last_bucket = mark(self._device)
        work: Any = dist.all_reduce(bucket.buffer(), async_op=True)
        sent: torch.futures.Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
        return sent

    def note_end(self) -> None:
        """Note that the backward pass and its communication are complete."""
        if self._last_bucket is not None:
            self._waits.append((self._last_bucket, mark(self._device)))
            self._last_bucket = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as lost to communication."""
        start = mark(self._device)
        yield
        self._waits.append((start, mark(self._device)))

    def take_waited_s(self) -> float:
        """Return the seconds waited since the last call; a GPU must have finished the steps until now."""
        waits, self._waits = self._waits, []
        return sum(elapsed_s(start, end) for start, end in waits)


class Gradients:
    """The network as the forward pass calls it, and the sum of its gradients over the ranks."""

    def __init__(self, network: Any, world: World, accumulation_steps: int, in_place: bool = False) -> None:
        """Wrap the network for several ranks; `in_place` keeps the gradients' memory: CUDA graphs reuse theirs."""
        self._network, self._in_place = network, in_place
        # A CUDA graph runs normally once, is recorded in the second pass, and replayed from the third on.
        self.warm_up_passes = 3 if in_place else 1
        if in_place:
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        self.sum = GradientSum(world.device)
        self.forward: Any = network
        self._ddp: Any = None
        if world.size > 1:
            self._ddp = self.forward = DistributedDataParallel(
                network,
                device_ids=[world.local_rank] if world.device.type == "cuda" else None,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
                # A static graph forbids no_sync in DDP's first pass.
                static_graph=accumulation_steps == 1,
            )
            self._ddp.register_comm_hook(None, self.sum.reduce)

    def clear(self) -> None:
        """Reset all gradients for the next step."""
        self._network.zero_grad(set_to_none=not self._in_place)

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a backward pass: only the last of a step sends gradients."""
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()
