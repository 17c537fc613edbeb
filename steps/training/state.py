"""The state that training changes and a checkpoint holds: weights, their moving average, the optimizer's moments.

Frozen weights are no part of it: beside a LoRA they are the starting weights, which the training's identity knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.weight_average import WeightAverage
from steps.training.optimizer import Optimizer, by_muon, first_moments, is_matrix
from steps.training.ranks import World
from steps.training.shards import Shards

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
        own = [self.parameters[place] for place in self.shards.own]
        self._arguments = arguments
        named = zip(self.names, self.parameters, strict=True)
        if arguments.optimizer == "muon" and not any(is_matrix(*one) for one in named):
            raise StepError("optimizer muon: the model has no matrix inside its blocks; set adamw")
        self.optimizer = Optimizer({self.names[place]: self.parameters[place] for place in self.shards.own}, arguments)
        self.average = (
            WeightAverage(
                own,
                arguments.ema_decay,
                arguments.ema_reference_samples,
                torch.bfloat16 if arguments.ema_precision == "bfloat16" else None,
                places=self.shards.own,
            )
            if arguments.ema_decay
            else None
        )

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
