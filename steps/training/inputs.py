"""What the model is trained on: loaded rows and their random numbers, on the rank's device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from steps.training.captions import CaptionConditioning
from steps.training.courier import Courier
from steps.training.diffusion import Diffusion
from steps.training.draws import Draws, draw


class Rows(Protocol):
    """Rows of the latents: a batch of the loader, or held-out rows."""

    @property
    def mean(self) -> Tensor:
        """[n, C, H, W] float16, unscaled."""

    @property
    def std(self) -> Tensor:
        """[n, C, H, W] float16, unscaled."""

    @property
    def token_ids(self) -> Tensor:
        """[n, caption length] int32."""

    @property
    def embeddings(self) -> Tensor | None:
        """[n, caption length, width] float16, where they are cached."""


@dataclass(frozen=True)
class Inputs:
    """Samples on the device, ready for the objective."""

    mean: Tensor
    std: Tensor
    posterior: Tensor
    noise: Tensor
    timesteps: Tensor
    captions: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    def micro_batches(self, size: int) -> Iterator[Inputs]:
        """Yield pieces of `size` samples, as views."""
        tensors = [getattr(self, field.name) for field in fields(self)]
        for start in range(0, len(self), size):
            yield Inputs(*(tensor[start : start + size] for tensor in tensors))


class InputMaker:
    """Makes inputs out of rows."""

    def __init__(
        self,
        seed: int,
        caption_dropout: float,
        noise_offset: float,
        diffusion: Diffusion,
        captions: CaptionConditioning,
        device: torch.device,
    ) -> None:
        self._seed, self._caption_dropout, self._noise_offset = seed, caption_dropout, noise_offset
        self._diffusion, self._captions, self._device = diffusion, captions, device
        self._courier = Courier(device)

    def training(self, rows: Rows, positions: Tensor) -> Inputs:
        """Return the inputs of a rank's slice of a global batch; `positions` [n] are those of the training stream."""
        draws = draw(self._seed, positions.tolist(), latent_shape_of(rows.mean), pin_memory=self._device.type == "cuda")
        timesteps = self._diffusion.timestep_of(draws.timestep)
        # Noise that a channel shares lets the model learn dark and bright pictures (Guttenberg 2023, offset noise).
        noise = draws.noise.add_(draws.offset, alpha=self._noise_offset) if self._noise_offset else draws.noise
        return self.assemble(rows, draws, noise, timesteps, draws.caption < self._caption_dropout)

    def assemble(self, rows: Rows, draws: Draws, noise: Tensor, timesteps: Tensor, dropped: Tensor) -> Inputs:
        """Return inputs on the device."""
        captions = self._captions.choose(rows.token_ids, rows.embeddings, dropped)
        tensors = (rows.mean, rows.std, draws.posterior, noise, timesteps, captions)
        return Inputs(*self._courier.bring(tensors))


def latent_shape_of(latents: Tensor) -> tuple[int, int, int]:
    """Return channels, height and width of latents [n, C, H, W]: every bucket has its own."""
    return latents.shape[1], latents.shape[2], latents.shape[3]
