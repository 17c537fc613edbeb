"""The diffusion process: noisy latents, the target of the prediction, and the weights of samples.

`load_process` returns it, or the flow of flow.py: both have the same methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from params.families import FLOW
from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.pretrained import flow_schedule, load_noise_scheduler
from steps.training.flow import RectifiedFlow, shift_of

# Some schedulers write 2^-24 in place of the last alpha^2 of 0.
PURE_NOISE: Final = 1e-6


class Diffusion:
    """A noise schedule x_t = alpha_t x_0 + sigma_t noise, with alpha_t^2 + sigma_t^2 = 1."""

    def __init__(
        self,
        alphas_cumprod: Tensor,
        prediction_type: str,
        snr_gamma: float = 0.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Prepare the tables; `alphas_cumprod` [timesteps] is alpha_t^2, as diffusers' schedulers hold it."""
        squared = alphas_cumprod.to(torch.float64)
        self._alpha = squared.sqrt().to(device=device, dtype=dtype)
        self._sigma = (1.0 - squared).sqrt().to(device=device, dtype=dtype)
        self._weight = _weights(squared, prediction_type, snr_gamma).to(device=device, dtype=dtype)
        self._prediction_type = prediction_type
        self.timesteps = len(squared)
        """Number of timesteps."""

    def timestep_of(self, uniform: Tensor) -> Tensor:
        """Return timesteps, int64, for numbers uniform in [0, 1)."""
        return (uniform * self.timesteps).long().clamp_(max=self.timesteps - 1)

    def evenly(self, places: Tensor) -> Tensor:
        """Return timesteps, int64, for places in [0, 1): those of validation."""
        return self.timestep_of(places)

    def noisy_and_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return noisy latents and the target, [n, C, H, W]; v is alpha_t noise - sigma_t x_0 (arXiv:2202.00512)."""
        alpha = self._alpha[timesteps][:, None, None, None]
        sigma = self._sigma[timesteps][:, None, None, None]
        noisy = alpha * latents + sigma * noise
        return noisy, noise if self._prediction_type == "epsilon" else alpha * noise - sigma * latents

    def weight_of(self, timesteps: Tensor) -> Tensor:
        """Return the weights of samples at timesteps, [n]."""
        return self._weight[timesteps]


def load_process(
    folder: Path, arguments: TrainArguments, latent_side: int, device: torch.device, dtype: torch.dtype
) -> Diffusion | RectifiedFlow:
    """Return the process of the settings; diffusion has the noise schedule of a pretrained folder."""
    if arguments.prediction_type == FLOW:
        return RectifiedFlow(shift_of(arguments.timestep_shift, latent_side), device, dtype)
    if arguments.zero_terminal_snr and arguments.prediction_type == "epsilon":
        raise StepError(
            "zero_terminal_snr needs prediction_type v_prediction: at the last timestep there is only noise, and "
            "predicting it teaches nothing (arXiv:2305.08891)"
        )
    scheduler = load_noise_scheduler(folder, **noise_schedule_changes(arguments, latent_side))
    return Diffusion(scheduler.alphas_cumprod, arguments.prediction_type, arguments.snr_gamma, device, dtype)


def noise_schedule_changes(arguments: TrainArguments, latent_side: int) -> dict[str, str | bool | float]:
    """Return what the settings change in a scheduler's configuration, for training and for the exported model.

    A schedule that ends in pure noise must be sampled from its very last timestep: trailing spacing. Flow is sampled
    with the shift that it was trained with.
    """
    if arguments.prediction_type == FLOW:
        return flow_schedule(shift_of(arguments.timestep_shift, latent_side))
    changes: dict[str, str | bool | float] = {"prediction_type": arguments.prediction_type}
    if arguments.zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changes


def _weights(alphas_cumprod: Tensor, prediction_type: str, snr_gamma: float) -> Tensor:
    """Return min(SNR, gamma) / SNR for epsilon and min(SNR, gamma) / (SNR + 1) for v (arXiv:2303.09556, section 3.4).

    Written so that neither a signal-to-noise ratio of 0 nor an infinite one divides by 0. On a schedule that ends in
    pure noise, v's min(SNR, gamma) is at least 1: otherwise the step with which sampling begins would weigh nothing and
    never be learned.
    """
    if snr_gamma == 0:
        return torch.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1.0 - alphas_cumprod)
    of_epsilon = torch.clamp(snr_gamma / snr, max=1.0)
    if prediction_type == "epsilon":
        return of_epsilon
    of_v = of_epsilon * alphas_cumprod
    return torch.maximum(of_v, 1.0 - alphas_cumprod) if alphas_cumprod[-1] < PURE_NOISE else of_v
