"""Who keeps what of the optimizer: every rank all of it, or each parameter's part on one rank alone.

The second is stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). Weights and gradients stay on every rank; the
moments of AdamW and the moving average are divided by the number of ranks. A rank steps its own parameters, and sends
them to the others. AdamW and the average look at one element at a time, so the result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from steps.errors import StepError
from steps.training.ranks import World

T = TypeVar("T")


class Shards:
    """The parameters of a model, and which rank keeps what belongs to each."""

    def __init__(self, parameters: Sequence[Tensor], world: World, divided: bool) -> None:
        """Divide, or give every rank everything. Raises StepError where a rank would have nothing."""
        self._parameters, self._world = [parameter.detach() for parameter in parameters], world
        self.divided = divided and world.size > 1
        """Whether a rank has a part alone."""
        if self.divided and len(parameters) < world.size:
            raise StepError(f"shard_optimizer: {len(parameters)} parameters do not do for {world.size} ranks; unset it")
        sizes = [parameter.numel() for parameter in parameters]
        self._owners = owners(sizes, world.size) if self.divided else [world.rank] * len(sizes)

    @property
    def is_head(self) -> bool:
        """Whether this rank writes what there is once for a job."""
        return self._world.is_head

    @property
    def own(self) -> list[int]:
        """Which parameters, by their place, this rank keeps moments and averages of."""
        return [place for place, owner in enumerate(self._owners) if owner == self._world.rank]

    def of_own(self, values: Sequence[T]) -> list[T]:
        """Return those of one value for each parameter that belong to this rank."""
        return [values[place] for place in self.own]

    def share(self) -> None:
        """Give every rank each parameter as its owner has it. Nothing waits for a GPU."""
        if not self.divided:
            return
        pairs = zip(self._parameters, self._owners, strict=True)
        sent: list[Any] = [dist.broadcast(flat(parameter), owner, async_op=True) for parameter, owner in pairs]
        for work in sent:
            work.wait()

    def gather(self, place: int, tensor: Tensor) -> Tensor:
        """Return on every rank what the owner of a parameter has; the others pass a tensor of the meta device."""
        if not self.divided:
            return tensor
        whole = empty_on(self._world.device, tensor) if tensor.is_meta else tensor.contiguous()
        dist.broadcast(whole, self._owners[place])
        return whole


def owners(sizes: Sequence[int], ranks: int) -> list[int]:
    """Return the rank of each parameter: the largest first, to whoever has least."""
    loads, found = [0] * ranks, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        found[place] = loads.index(min(loads))
        loads[found[place]] += sizes[place]
    return found


def flat(tensor: Tensor) -> Tensor:
    """Return a dense tensor's memory as it lies, as a view: channels last is not what a broadcast calls contiguous."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order)


def empty_on(device: torch.device, tensor: Tensor) -> Tensor:
    """Return memory for a tensor's values."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
