"""The training objective: the error of the model's prediction for a sample."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from steps.model.denoiser import Denoiser
from steps.training.block_aids import BlockAids
from steps.training.diffusion import Diffusion, RectifiedFlow
from steps.training.inputs import CaptionConditioning, Inputs, latent_shape_of

# Of weights, optimizer and losses; bfloat16 is for the forward pass alone.
WEIGHT_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
# Of the forward pass, and of the frozen text encoder.
FORWARD_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def resolved_precision(precision: str, device: torch.device) -> str:
    """Resolve `auto` to the fastest precision on a device; return any other unchanged.

    Measured for the local UNet on one core with AVX-512 BF16: bfloat16 takes 0.6 of float32's time. Without such
    instructions it is emulated, and slower.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if native else "float32"


class Objective:
    """Mean squared error of the prediction, for each sample."""

    def __init__(
        self,
        denoiser: Denoiser,
        process: Diffusion | RectifiedFlow,
        captions: CaptionConditioning,
        scaling_factor: float,
        precision: str,
        device: torch.device,
        shift_factor: float = 0.0,
        aids: BlockAids | None = None,
    ) -> None:
        self._denoiser, self._captions, self._aids = denoiser, captions, aids
        self._process, self._scaling_factor, self._shift_factor = process, scaling_factor, shift_factor
        self._dtype = WEIGHT_DTYPES[precision]
        half: Callable[[], AbstractContextManager[Any]] = partial(torch.autocast, device.type, dtype=torch.bfloat16)
        self._autocast = half if precision == "bfloat16" else nullcontext

    def losses(self, network: Callable[..., Any], inputs: Inputs) -> Tensor:
        """Return the mean squared error of each sample, [n]."""
        mean, std = inputs.mean.to(self._dtype), inputs.std.to(self._dtype)
        # Stored moments are unscaled: latents are scaled here and nowhere else.
        latents = (mean + std * inputs.posterior - self._shift_factor) * self._scaling_factor
        noise = inputs.noise.to(self._dtype)
        noisy, target = self._process.noisy_and_target(latents, noise, inputs.timesteps)
        with self._autocast():
            conditions = self._captions.encode(inputs.captions, inputs.kept)
            if conditions[0].dtype == torch.float16 or self._dtype == torch.float64:
                conditions = tuple(condition.to(self._dtype) for condition in conditions)
            prediction = self._denoiser.forward(network, noisy, inputs.timesteps, conditions)
        return (prediction.to(self._dtype) - target).square().flatten(1).mean(1)

    def weighted_losses(self, network: Callable[..., Any], inputs: Inputs) -> Tensor:
        """Return the weighted losses whose sum training minimises, [n]."""
        weights = self._process.weight_of(inputs.timesteps)
        if self._aids is None or inputs.routes is None or inputs.features is None:
            return self.losses(network, inputs) * weights
        self._aids.prepare(latent_shape_of(inputs.mean), inputs.routes, inputs.mean.new_empty(0, dtype=self._dtype))
        return self.losses(network, inputs) * weights + self._aids.losses(inputs.features)
