"""The weights of each of DDP's buckets in equal pieces, one for each rank.

Stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054): gradients are reduce-scattered, each rank updates its piece
of the weights, and an all-gather brings the pieces together. A piece is cut from the bucket as DDP lays it out, so that
gradients are added up where they lie, and in the same order as by ranks that keep everything.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

from steps.training.ranks import World

# Elements. A CPU's vector instructions round other than its scalar ones, which take what is left of a vector at the
# end; GPUs read aligned memory faster.
ALIGNMENT: Final = 64


@dataclass(frozen=True, eq=False)
class WeightPart:
    """What a rank keeps of one parameter."""

    place: int
    """The parameter's among all that are trained."""
    whole: Tensor
    """The parameter."""
    stretch: slice | None
    """Which of its elements, in the order of its memory; None: all."""
    tensor: Tensor
    """A view of them with their gradient, of shape [elements], or the parameter itself."""
    stepped: Tensor
    """The same from the vector that begins it to the vector that ends it: so the optimizer treats every element as it
    does in the whole parameter, and what it makes of the neighbours' is overwritten by the neighbours."""

    def of(self, whole: Tensor) -> Tensor:
        """Return the part of a tensor of the parameter's shape."""
        if self.stretch is None:
            return whole
        in_memory = sorted(range(whole.ndim), key=self.whole.stride, reverse=True)
        return whole.permute(in_memory).reshape(-1)[self.stretch]

    def inside(self, stepped: Tensor) -> Tensor:
        """Return the part of a tensor like `stepped`."""
        if self.stretch is None:
            return stepped
        return stepped[self.stretch.start % ALIGNMENT :][: len(self.tensor)]


def whole_parts(parameters: Sequence[Tensor]) -> list[WeightPart]:
    return [WeightPart(place, parameter, None, parameter, parameter) for place, parameter in enumerate(parameters)]


def _part(place: int, parameter: Tensor, begin: int, end: int) -> WeightPart:
    """Return a part whose gradient is where DDP leaves the parameter's: its buckets stay where they are."""
    around = slice(begin // ALIGNMENT * ALIGNMENT, -(-end // ALIGNMENT) * ALIGNMENT)
    views, part = [], slice(begin, end)
    for stretch in (part, around):
        view = _memory(parameter.detach())[stretch]
        view.grad = None if parameter.grad is None else _memory(parameter.grad)[stretch]
        views.append(view)
    return WeightPart(place, parameter, part, *views)


def _memory(tensor: Tensor) -> Tensor:
    return tensor.as_strided((tensor.numel(),), (1,))


class Pieces:
    """Some parameters in a row, cut into as many equal pieces as there are ranks."""

    def __init__(self, parameters: Mapping[int, Tensor], whole: bool, world: World) -> None:
        """Cut parameters, by place, which are of one dtype and dense; `whole`: every rank steps all of them."""
        self.whole, self._world, self._parameters = whole, world, list(parameters.values())
        self._starts = [0, *accumulate(parameter.numel() for parameter in self._parameters)]
        self.size = -(-self._starts[-1] // world.size)
        """Elements of each piece, but for the last ones, which may be shorter."""
        first = world.rank * self.size
        self.parts: list[WeightPart] = []
        """What lies in this rank's piece."""
        for (place, parameter), start in zip(parameters.items(), self._starts, strict=False):
            begin, end = max(first - start, 0), min(first + self.size - start, parameter.numel())
            if begin < end:
                self.parts.append(_part(place, parameter, begin, end))

    @torch.no_grad()
    def share(self) -> None:
        """Bring the ranks' pieces of the weights together. Nothing waits for a GPU."""
        flat = self._parameters[0].new_empty(self._world.size * self.size)
        own = flat.view(self._world.size, -1)[self._world.rank]
        if self.parts:
            torch.cat([part.tensor for part in self.parts], out=own[: sum(len(part.tensor) for part in self.parts)])
        dist.all_gather_single(flat, own)
        lie = zip(self._parameters, self._starts, strict=False)
        torch._foreach_copy_(self._parameters, [flat.as_strided(one.shape, one.stride(), at) for one, at in lie])


def pieces_of(
    parameters: Sequence[Tensor], buckets: Sequence[Sequence[int]], muon: Collection[int], world: World
) -> list[Pieces]:
    """Return the pieces of DDP's buckets, given by place; Muon's matrices lie apart, for every rank steps them."""
    found = []
    for bucket in buckets:
        for whole in (False, True):
            group = {place: parameters[place] for place in bucket if (place in muon) is whole}
            found += [Pieces(group, whole, world)] if group else []
    return found
