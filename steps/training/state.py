"""What training changes: the weights, their moving average, and the optimizer's moments. A checkpoint holds it all."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from params.programs import TrainArguments
from steps.model.weight_average import WeightAverage

WEIGHTS: Final = "weights"
AVERAGE: Final = "average"
OPTIMIZER: Final = "optimizer"

Tensors = dict[str, dict[str, Tensor]]


class TrainingState:
    """A UNet, AdamW over it, and the moving average of its weights."""

    def __init__(self, unet: Any, arguments: TrainArguments) -> None:
        """Prepare a training that has seen nothing yet."""
        self.unet = unet
        self.names = [name for name, _ in unet.named_parameters()]
        self.parameters: list[Tensor] = [parameter for _, parameter in unet.named_parameters()]
        self.optimizer = _optimizer(self.parameters, arguments)
        self.average = (
            WeightAverage(
                self.parameters,
                arguments.ema_decay,
                arguments.ema_reference_samples,
                torch.bfloat16 if arguments.ema_precision == "bfloat16" else None,
            )
            if arguments.ema_decay
            else None
        )

    def tensors(self) -> Tensors:
        """Return every tensor, by file and name; they are the live ones, so that writing to them restores the state."""
        groups: Tensors = {WEIGHTS: dict(zip(self.names, (p.detach() for p in self.parameters), strict=True))}
        if self.average is not None:
            groups[AVERAGE] = dict(zip(self.names, self.average.tensors, strict=True))
        groups[OPTIMIZER] = {
            f"{key}.{name}": self.optimizer.state[parameter][key]
            for name, parameter in zip(self.names, self.parameters, strict=True)
            for key in sorted(self.optimizer.state[parameter])
        }
        return groups

    def snapshot(self) -> Tensors:
        """Return copies of every tensor in memory of the CPU, which training does not change."""
        return {
            group: {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
            for group, tensors in self.tensors().items()
        }


def _optimizer(parameters: list[Tensor], arguments: TrainArguments) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with its state made, as its first step would.

    Fused: one kernel for all tensors on a GPU, and the skipping of a step is decided on the device.
    """
    optimizer = torch.optim.AdamW(
        parameters,
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        weight_decay=arguments.weight_decay,
        fused=True,
    )
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    return optimizer
