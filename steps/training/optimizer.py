"""The optimizer: AdamW for everything, or Muon for the hidden matrices beside AdamW for the rest.

Reads gradients, and changes weights and moments in place. Nothing in it waits for the device: it decides itself
whether a step is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from params.programs import TrainArguments


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether Muon may train a parameter: the 2-D weight of a layer inside the denoiser's blocks.

    In a UNet these are attention, feed-forward and the projections of the time. Embeddings and the output layer lie
    outside the blocks: Muon is not made for them (Jordan et al. 2024). Convolutions are left out: torch's Muon takes
    2-D weights only.
    """
    return parameter.ndim == 2 and "block" in name.partition(".")[0]


class Optimizer:
    """Steps of AdamW and Muon, with the state of each parameter as in the first step."""

    def __init__(self, parameters: Mapping[str, Tensor], arguments: TrainArguments) -> None:
        """Prepare the steps of some parameters, by name."""
        self.moments: dict[Tensor, dict[str, Tensor]] = {}
        """Of each parameter, by their names in a checkpoint."""
        kinds = {name: by_muon(name, parameter, arguments) for name, parameter in parameters.items()}
        matrices = [parameter for name, parameter in parameters.items() if kinds[name]]
        others = [parameter for name, parameter in parameters.items() if not kinds[name]]
        of_both: Any = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
        betas = (arguments.adam_beta1, arguments.adam_beta2)
        # Loshchilov and Hutter 2019, arXiv:1711.05101. Fused: one kernel for all tensors on a GPU, and the device
        # decides whether to skip a step. A rank that keeps a part of the state may have matrices only.
        self._adamw: Any = torch.optim.AdamW(others, betas=betas, fused=True, **of_both) if others else None
        # Jordan et al. 2024, with steps as large as AdamW's (Liu et al. 2025, arXiv:2502.16982): one learning rate
        # and one weight decay serve both. One for each matrix: a step that may be skipped copies one matrix at a time.
        self._muons: list[Any] = [
            torch.optim.Muon([matrix], adjust_lr_fn="match_rms_adamw", **of_both) for matrix in matrices
        ]
        for optimizer in (self._adamw, *self._muons):
            for parameter in optimizer.param_groups[0]["params"] if optimizer is not None else ():
                moments = first_moments(parameter, muon=optimizer is not self._adamw)
                optimizer.state[parameter] = self.moments[parameter] = moments

    @torch.no_grad()
    def step(self, learning_rate: float, skipped: Tensor) -> None:
        """Change the parameters by their gradients; where `skipped` (float32, shape []) is 1, nothing changes."""
        if self._adamw is not None:
            # At 1 the fused kernels change nothing: torch's GradScaler skips a step this way.
            self._adamw.found_inf = skipped
            self._adamw.param_groups[0]["lr"] = learning_rate
            self._adamw.step()
        for muon in self._muons:
            (group,) = muon.param_groups
            group["lr"] = learning_rate
            (matrix,) = group["params"]
            changed = (matrix, self.moments[matrix]["momentum_buffer"])
            before = [tensor.clone() for tensor in changed]
            muon.step()
            for tensor, former in zip(changed, before, strict=True):
                torch.where(skipped.bool(), former, tensor, out=tensor)


def by_muon(name: str, parameter: Tensor, arguments: TrainArguments) -> bool:
    """Return whether Muon trains a parameter under these settings."""
    return arguments.optimizer == "muon" and is_matrix(name, parameter)


def first_moments(parameter: Tensor, muon: bool) -> dict[str, Tensor]:
    """Return the optimizer's own state of a parameter before its first step."""
    zeros = torch.zeros_like(parameter.detach(), memory_format=torch.preserve_format)
    if muon:
        return {"momentum_buffer": zeros}
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
