"""Rectified flow: noisy latents on straight lines to noise, and the velocity that the network learns.

The timesteps of Stable Diffusion 3 (Esser et al. 2024, arXiv:2403.03206): logit-normal with mean 0 and deviation 1, its
rf/lognorm(0.00, 1.00), and shifted towards noise for larger pictures (equation 23).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

TIMESTEPS: Final = 1000
"""A network is told the share of noise times this, as diffusers' samplers for flow do."""
# Side of the latents at which timesteps are not shifted: 256 px with a VAE that divides by 8.
UNSHIFTED_SIDE: Final = 32


def shift_of(wanted: float, latent_side: int) -> float:
    """Return by how much timesteps are shifted: as wanted, or where that is 0 by the side of the (square) latents.

    The root of the number of latent positions over that of 256 px; smaller pictures are not shifted.
    """
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
