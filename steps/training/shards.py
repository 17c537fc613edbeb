"""Where the optimizer state lives: all of it on every rank, or each parameter's part on one rank only.

The second is stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). Weights and gradients stay on every rank; the
ranks divide the moments of AdamW and the moving average. A rank updates its own parameters and sends them to the
others. AdamW and the average work element by element, so the result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from steps.errors import StepError
from steps.training.ranks import World


class Shards:
    """The parameters of a model, and which rank keeps the state of each."""

    def __init__(self, parameters: Sequence[Tensor], world: World, divided: bool) -> None:
        """Divide the state, or keep all of it on every rank. Raises StepError if a rank would get nothing."""
        self._parameters, self._world = [parameter.detach() for parameter in parameters], world
        self.divided = divided and world.size > 1
        """Whether each rank keeps only a part."""
        if self.divided and len(parameters) < world.size:
            raise StepError(f"shard_optimizer: {len(parameters)} parameters do not do for {world.size} ranks; unset it")
        sizes = [parameter.numel() for parameter in parameters]
        self._owners = owners(sizes, world.size) if self.divided else [world.rank] * len(sizes)

    @property
    def own(self) -> list[int]:
        """Places of the parameters whose moments and averages this rank keeps."""
        return [place for place, owner in enumerate(self._owners) if owner == self._world.rank]

    def share(self) -> None:
        """Send each parameter from its owner to every rank. Nothing waits for a GPU."""
        if not self.divided:
            return
        pairs = zip(self._parameters, self._owners, strict=True)
        sent: list[Any] = [dist.broadcast(flat(parameter), owner, async_op=True) for parameter, owner in pairs]
        for work in sent:
            work.wait()

    def gather(self, place: int, tensor: Tensor) -> Tensor:
        """Return the owner's tensor of a parameter on every rank; the others pass a tensor on the meta device."""
        if not self.divided:
            return tensor
        whole = tensor.contiguous()
        if whole.is_meta:
            whole = torch.empty(whole.shape, dtype=whole.dtype, device=self._world.device)
        dist.broadcast(whole, self._owners[place])
        return whole


def owners(sizes: Sequence[int], ranks: int) -> list[int]:
    """Return the rank of each parameter: the largest first, to the rank that has least so far."""
    loads, ranks_of = [0] * ranks, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        ranks_of[place] = loads.index(min(loads))
        loads[ranks_of[place]] += sizes[place]
    return ranks_of


def flat(tensor: Tensor) -> Tensor:
    """Return a view of a dense tensor in memory order: a broadcast does not accept channels last as contiguous."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order)
