"""The processes between pictures and noise, with the same methods: diffusion, and rectified flow.

Each makes noisy latents, the target of the prediction and the weights of samples. Flow has the timesteps of Stable
Diffusion 3 (Esser et al. 2024, arXiv:2403.03206): logit-normal with mean 0 and deviation 1, its rf/lognorm(0.00, 1.00),
and shifted towards noise for larger pictures (equation 23).
"""

from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from params.families import FLOW
from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.pretrained import flow_schedule, load_noise_scheduler

TIMESTEPS: Final = 1000
"""A network is told the share of noise times this, as diffusers' samplers for flow do."""
# Side of the latents at which timesteps are not shifted: 256 px with a VAE that divides by 8.
UNSHIFTED_SIDE: Final = 32
# Some schedulers write 2^-24 in place of the last alpha^2 of 0.
PURE_NOISE: Final = 1e-6


def shift_of(wanted: float, latent_side: int) -> float:
    """Return the shift of timesteps: as wanted, or at 0 the root of the latent positions over 256 px's, at least 1."""
    return wanted or max(1.0, latent_side / UNSHIFTED_SIDE)


class RectifiedFlow:
    """The process x_t = (1 - t) x_0 + t noise, t from 0 to 1."""

    def __init__(self, shift: float, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self._shift, self._device, self._dtype = shift, device, dtype

    def timestep_of(self, uniform: Tensor) -> Tensor:
        """Return timesteps, float32, for numbers uniform in [0, 1): logit-normal, then shifted."""
        noise_share = torch.sigmoid(torch.special.ndtri(uniform.to(torch.float64)))
        shifted = self._shift * noise_share / (1.0 + (self._shift - 1.0) * noise_share)
        return (TIMESTEPS * shifted).float()

    def evenly(self, places: Tensor) -> Tensor:
        """Return timesteps, float32, for places in [0, 1), whatever the shift: those of validation."""
        return (TIMESTEPS * places).float()

    def noisy_and_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noisy latents and the velocity, which points from picture to noise, both [n, C, H, W]."""
        noise_share = (timesteps.to(latents.dtype) / TIMESTEPS)[:, None, None, None]
        return torch.lerp(latents, noise, noise_share), noise - latents

    def weight_of(self, timesteps: Tensor) -> Tensor:
        """Return the weights of samples, [n]: all 1, for the density of the timesteps does the weighing."""
        return torch.ones(len(timesteps), device=self._device, dtype=self._dtype)


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
        self._prediction_type, self.timesteps = prediction_type, len(squared)

    def timestep_of(self, uniform: Tensor) -> Tensor:
        """Return timesteps, int64, for numbers uniform in [0, 1)."""
        return (uniform * self.timesteps).long().clamp_(max=self.timesteps - 1)

    evenly = timestep_of
    """Those of validation."""

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
    """Return what settings change in a scheduler: pure noise is sampled from its last timestep, flow with its shift."""
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
