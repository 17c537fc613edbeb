"""The state that training changes and a checkpoint holds: weights, their moving average, the optimizer's moments.

Frozen weights are no part of it: beside a LoRA they are the starting weights, which the training's identity knows. All
of the state lives on every rank, or each parameter's part on one rank only: stage 1 of ZeRO (Rajbhandari et al. 2020,
arXiv:1910.02054). Then weights and gradients stay on every rank; a rank updates its own parameters and sends them to
the others. AdamW and the average work element by element, so the result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.weight_average import WeightAverage
from steps.training.optimizer import Optimizer, by_muon, first_moments, is_matrix
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


WEIGHTS: Final = "weights"
AVERAGE: Final = "average"
OPTIMIZER: Final = "optimizer"

Tensors = dict[str, dict[str, Tensor]]


class TrainingState:
    """A network, the optimizer of its weights, and their moving average."""

    def __init__(self, network: Any, arguments: TrainArguments, world: World) -> None:
        """Prepare a training that has seen no samples."""
        self.network, self._is_head = network, world.is_head
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.names = list(trained)
        self.parameters: list[Tensor] = list(trained.values())
        self.shards = Shards(self.parameters, world, arguments.shard_optimizer)
        self._arguments = arguments
        if arguments.optimizer == "muon" and not any(is_matrix(*one) for one in trained.items()):
            raise StepError("optimizer muon: the model has no matrix inside its blocks; set adamw")
        own = {self.names[place]: self.parameters[place] for place in self.shards.own}
        self.optimizer = Optimizer(own, arguments)
        self.average: WeightAverage | None = None
        if decay := arguments.ema_decay:
            kind = torch.bfloat16 if arguments.ema_precision == "bfloat16" else None
            places, reference = self.shards.own, arguments.ema_reference_samples
            self.average = WeightAverage(list(own.values()), decay, reference, kind, places)

    def tensors(self) -> Tensors:
        """Return the live tensors, by file and name, to restore by writing; another rank's are on the meta device."""
        groups: Tensors = {}
        for group, name, _, tensor in self._entries():
            groups.setdefault(group, {})[name] = tensor
        return groups

    def snapshot(self, copied: bool = True) -> Tensors:
        """Return every tensor in CPU memory, on the head rank only.

        If the ranks divide the state, all of them must call this together. Unless `copied`, a tensor that is in CPU
        memory anyway is the live one, which the next step changes.
        """
        groups: Tensors = {}
        for group, name, place, tensor in self._entries():
            whole = tensor if group == WEIGHTS else self.shards.gather(place, tensor)
            if self._is_head:
                groups.setdefault(group, {})[name] = whole.to("cpu", copy=copied).contiguous()
        return groups

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Swap the moving average, if any, with the weights for a while, on all ranks; every bit comes back."""
        if self.average is None:
            yield
            return
        with self.average.swapped():
            self.shards.share()
            yield
        self.shards.share()

    def _entries(self) -> Iterator[tuple[str, str, int, Tensor]]:
        """Yield (file, name, place of the parameter, tensor)."""
        averages = dict(zip(self.shards.own, self.average.tensors, strict=True)) if self.average is not None else {}
        kind = next((average.dtype for average in averages.values()), None)
        for place, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            yield WEIGHTS, name, place, parameter.detach()
            if self.average is not None:
                elsewhere = torch.empty(parameter.shape, dtype=kind, device="meta")
                yield AVERAGE, name, place, averages.get(place, elsewhere)
            muon = by_muon(name, parameter, self._arguments)
            moments = self.optimizer.moments.get(parameter) or first_moments(parameter.to("meta"), muon)
            for key in sorted(moments):
                yield OPTIMIZER, f"{key}.{name}", place, moments[key]
