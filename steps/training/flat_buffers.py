"""Trained weights and their gradients in a few flat buffers of equal pieces, one for each rank.

Stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054): gradients are reduce-scattered, each rank updates its piece
of the weights, and an all-gather brings the pieces together. A buffer holds whole parameters, in the order in which the
backward pass is about to finish them, so that it can be sent while the pass goes on. Every element lies where its
parameter has it in memory, so that channels last stays channels last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from steps.training.ranks import World

# Elements. Parameters and pieces begin at multiples: a CPU's vector instructions round other than its scalar ones, and
# so the same elements come to the end of a vector, however a parameter is cut. GPUs read aligned memory faster.
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

    def of(self, whole: Tensor) -> Tensor:
        """Return the part of a tensor of the parameter's shape."""
        if self.stretch is None:
            return whole
        in_memory = sorted(range(whole.ndim), key=self.whole.stride, reverse=True)
        return whole.permute(in_memory).reshape(-1)[self.stretch]


def whole_parts(parameters: Sequence[Tensor]) -> list[WeightPart]:
    """Return parameters as parts that hold all of them."""
    return [WeightPart(place, parameter, None, parameter) for place, parameter in enumerate(parameters)]


class FlatBuffer:
    """Some parameters, whose memory it takes over, and their gradients."""

    def __init__(self, parameters: Mapping[int, Tensor], whole: bool, world: World) -> None:
        """Move parameters, by place, into the buffer; all are of one dtype and dense.

        `whole`: every rank steps all of them, and needs all of their gradient.
        """
        self.parameters, self.whole, self._world = dict(parameters), whole, world
        sizes = [-(-parameter.numel() // ALIGNMENT) for parameter in parameters.values()]
        self._starts = [ALIGNMENT * sum(sizes[:number]) for number in range(len(sizes))]
        self.piece_size = -(-sum(sizes) // world.size) * ALIGNMENT
        """Elements of each rank's piece; between parameters and behind the last there may be zeros."""
        first = next(iter(parameters.values()))
        self.weights, self.gradients = (first.new_zeros(world.size * self.piece_size) for _ in range(2))
        for parameter, start in zip(parameters.values(), self._starts, strict=True):
            lies = (parameter.shape, parameter.stride(), start)
            weight = torch.as_strided(self.weights, *lies).copy_(parameter.detach())
            parameter.data, parameter.grad = weight, torch.as_strided(self.gradients, *lies)

    def own(self, flat: Tensor) -> Tensor:
        """Return this rank's piece of a tensor like the buffer."""
        return flat.view(self._world.size, -1)[self._world.rank]

    def parts(self) -> Iterator[WeightPart]:
        """Yield what lies in this rank's piece."""
        first = self._world.rank * self.piece_size
        for (place, parameter), start in zip(self.parameters.items(), self._starts, strict=True):
            begin, end = max(start, first), min(start + parameter.numel(), first + self.piece_size)
            if begin < end:
                part = self.weights[begin:end]
                part.grad = self.gradients[begin:end]
                yield WeightPart(place, parameter, slice(begin - start, end - start), part)


def flat_buffers(
    parameters: Sequence[Tensor], whole: Sequence[bool], world: World, most_bytes: int
) -> list[FlatBuffer]:
    """Return buffers of at most `most_bytes`, or of one parameter; those that every rank steps lie apart."""
    groups: list[dict[int, Tensor]] = []
    newest: dict[object, dict[int, Tensor]] = {}
    # The backward pass finishes the last parameters first.
    for place, parameter in reversed(list(enumerate(parameters))):
        kind = (whole[place], parameter.dtype)
        if kind not in newest or sum(one.nbytes for one in newest[kind].values()) + parameter.nbytes > most_bytes:
            newest[kind] = {}
            groups.append(newest[kind])
        newest[kind][place] = parameter
    return [FlatBuffer(group, whole[next(iter(group))], world) for group in groups]
