"""Trained weights and their gradients in a few flat buffers of equal pieces, one for each rank.

Stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054): gradients are reduce-scattered, each rank updates its piece
of the weights, and an all-gather brings the pieces together. A buffer holds whole parameters, in the order in which the
backward pass is about to finish them, so that it can be sent while the pass goes on. Every element lies where its
parameter has it in memory, so that channels last stays channels last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from steps.training.ranks import World

# Elements. Parameters and pieces begin at multiples: a CPU's vector instructions round other than its scalar ones, and
# so the same elements come to the end of a vector, however a parameter is cut. GPUs read aligned memory faster.
ALIGNMENT: Final = 64


@dataclass(frozen=True, eq=False)
class Part:
    """What a rank keeps of one parameter."""

    place: int
    """The parameter's among all that are trained."""
    whole: Tensor
    """The parameter."""
    stretch: slice | None
    """Which of its elements, in the order of its memory; None: all."""
    tensor: Tensor
    """A view of them with their gradient, of shape [elements], or the parameter itself."""

    def of(self, whole: Tensor) -> Tensor:
        """Return the part of a tensor of the parameter's shape; all of a scalar."""
        if self.stretch is None or not whole.ndim:
            return whole
        return whole.permute(_memory_order(self.whole)).reshape(-1)[self.stretch]


def whole_parts(parameters: Sequence[Tensor]) -> list[Part]:
    """Return parameters as parts that hold all of them."""
    return [Part(place, parameter, None, parameter) for place, parameter in enumerate(parameters)]


class FlatBuffer:
    """Some parameters, whose memory it takes over, and their gradients."""

    def __init__(self, parameters: Mapping[int, Tensor], whole: bool, world: World) -> None:
        """Move parameters, by place, and zero gradients into the buffer; all are of one dtype and dense."""
        self.parameters, self.whole, self._world = dict(parameters), whole, world
        first = next(iter(parameters.values()))
        """`whole`: every rank steps all of it, and needs all of the gradient."""
        *_, end = self._starts()
        self.piece_size = _aligned(-(-end // world.size))
        """Elements of each rank's piece; between parameters and behind the last there may be zeros."""
        kind: Any = {"dtype": first.dtype, "device": first.device}
        self.weights, self.gradients = (torch.zeros(world.size * self.piece_size, **kind) for _ in range(2))
        for (_, parameter), weight, gradient in zip(
            parameters.items(), self._views(self.weights), self._views(self.gradients), strict=True
        ):
            weight.copy_(parameter.detach())
            parameter.data, parameter.grad = weight, gradient

    def own(self, flat: Tensor) -> Tensor:
        """Return this rank's piece of a tensor like the buffer."""
        return flat.view(self._world.size, -1)[self._world.rank]

    def parts(self) -> Iterator[Part]:
        """Yield what lies in this rank's piece."""
        yield from (part for part, _ in self._own_parts())

    def gather(self, parts: Mapping[int, Tensor], dtype: torch.dtype | None) -> Iterator[tuple[int, Tensor]]:
        """Yield each parameter's place and a tensor of its shape, put together from all ranks' parts, by place."""
        flat = torch.zeros_like(self.weights, dtype=dtype)
        for part, start in self._own_parts():
            flat[start : start + len(part.tensor)] = parts[part.place]
        dist.all_gather_single(flat, self.own(flat))
        yield from zip(self.parameters, self._views(flat), strict=True)

    def _own_parts(self) -> Iterator[tuple[Part, int]]:
        """Yield what lies in this rank's piece, and where in the buffer."""
        first = self._world.rank * self.piece_size
        for (place, parameter), start in zip(self.parameters.items(), self._starts(), strict=False):
            begin, end = max(start, first), min(start + parameter.numel(), first + self.piece_size)
            if begin < end:
                part = self.weights[begin:end]
                part.grad = self.gradients[begin:end]
                yield Part(place, parameter, slice(begin - start, end - start), part), begin

    def _starts(self) -> Iterator[int]:
        """Yield where each parameter begins; last, where the next would."""
        start = 0
        for parameter in self.parameters.values():
            yield start
            start += _aligned(parameter.numel())
        yield start

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        """Yield the elements of each parameter, as they lie in its memory."""
        for parameter, start in zip(self.parameters.values(), self._starts(), strict=False):
            yield torch.as_strided(flat, parameter.shape, parameter.stride(), start)


def flat_buffers(
    parameters: Sequence[Tensor], apart: Sequence[bool], whole: Sequence[bool], world: World, most_bytes: int
) -> list[FlatBuffer]:
    """Return buffers of at most `most_bytes`, or of one parameter; some parameters lie apart from the others.

    How they are cut does not depend on which are kept whole: sums of gradients have the same bits either way.
    """
    groups: list[list[int]] = []
    newest: dict[tuple[bool, torch.dtype], list[int]] = {}
    # The backward pass finishes the last parameters first.
    for place in reversed(range(len(parameters))):
        kind = (apart[place], parameters[place].dtype)
        group = newest.get(kind)
        if group is None or sum(parameters[other].nbytes for other in (*group, place)) > most_bytes:
            group = newest[kind] = []
            groups.append(group)
        group.append(place)
    return [FlatBuffer({place: parameters[place] for place in group}, whole[group[0]], world) for group in groups]


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT


def _memory_order(tensor: Tensor) -> list[int]:
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
