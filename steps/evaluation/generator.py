"""Draws pictures for prompts with a pipeline of diffusers.

Each picture starts from the noise of its own seed, made on the CPU in float32: device, batch and
number of workers change it by rounding alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from steps.errors import StepError
from steps.evaluation.captions import Prompt
from steps.evaluation.reference import Pictures
from steps.model.denoiser import Conditions, batched
from steps.model.families import denoiser_in

# 4,096 captions of 77 x 1024 in float16 are 0.6 GB.
MAX_KEPT_CAPTIONS: Final = 4096


@dataclass(frozen=True)
class SamplingSettings:
    """How pictures are drawn: the same for every model that is compared."""

    guidance_scale: float
    """Classifier-free guidance; none up to 1."""
    inference_steps: int
    sampler: str
    """Which scheduler denoises: ddim, dpm++ or euler."""
    size_px: int
    """Side at which the model draws."""
    kept_px: int
    """Side to which the pictures are then reduced."""


class PictureGenerator:
    """A pipeline on one device, with the captions that it has encoded."""

    def __init__(self, pipeline: Any, drawing: SamplingSettings, device: torch.device) -> None:
        self._pipeline = pipeline
        self._pipeline.to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._denoiser = denoiser_in(pipeline)
        self._pipeline.scheduler = self._denoiser.sampler(drawing.sampler, self._pipeline.scheduler.config)
        self._reader = self._denoiser.reader_of(pipeline)
        self.own_network = self._network
        self._drawing = drawing
        self._device = device
        self._conditions: dict[str, Conditions] = {}

    @property
    def _network(self) -> Any:
        return getattr(self._pipeline, self._denoiser.part)

    def use(self, network: Any, drawing: SamplingSettings) -> None:
        """Draw with this network and these settings from now on; the sampler stays the same."""
        self._drawing = drawing
        network, dtype = network.to(self._device).eval(), self._pipeline.vae.dtype
        setattr(self._pipeline, self._denoiser.part, network if network.dtype == dtype else network.to(dtype))

    def draw(self, prompts: Sequence[Prompt]) -> Pictures:
        """Return pictures, (N, H, W, 3) uint8, at their kept size. StepError names a prompt whose one is not finite."""
        captions = [prompt.caption for prompt in prompts]
        conditions = self._encode([*captions, ""])
        wanted, unwanted = (batched(conditions[caption] for caption in of) for of in (captions, [""] * len(captions)))
        pixels: Tensor = self._pipeline(
            **self._denoiser.prompts(wanted, unwanted),
            latents=self._noise(prompts),
            guidance_scale=self._drawing.guidance_scale,
            num_inference_steps=self._drawing.inference_steps,
            height=self._drawing.size_px,
            width=self._drawing.size_px,
            output_type="pt",
        ).images
        self._check(pixels, prompts)
        pictures: Pictures = pixels.float().mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return _reduced(pictures, self._drawing.kept_px)

    def _noise(self, prompts: Sequence[Prompt]) -> Tensor:
        side = self._drawing.size_px // self._pipeline.vae_scale_factor
        shape = (1, self._network.config.in_channels, side, side)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(prompt.seed)) for prompt in prompts]
        return torch.cat(noise).to(device=self._device, dtype=self._network.dtype)

    def _encode(self, captions: Sequence[str]) -> dict[str, Conditions]:
        """Return each caption's conditions; a caption already encoded is not encoded again."""
        if len(self._conditions) > MAX_KEPT_CAPTIONS:
            self._conditions.clear()
        fresh = [caption for caption in dict.fromkeys(captions) if caption not in self._conditions]
        if fresh:
            encoded = self._reader.encode(self._reader.tokens(fresh))
            self._conditions.update(zip(fresh, zip(*encoded, strict=True), strict=True))
        return self._conditions

    def _check(self, pixels: Tensor, prompts: Sequence[Prompt]) -> None:
        finite = pixels.isfinite().flatten(1).all(1).tolist()
        for prompt, good in zip(prompts, finite, strict=True):
            if not good:
                raise StepError(
                    f"picture {prompt.index} ({prompt.caption!r}) is not a number; "
                    f"the model ran in {self._network.dtype}: try precision bfloat16 or float32"
                )


def _reduced(pictures: Pictures, side_px: int) -> Pictures:
    if pictures.shape[1] == side_px:
        return np.ascontiguousarray(pictures)
    size = (side_px, side_px)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in pictures])
