"""Encodes blocks: the VAE's posterior moments, the caption's tokens, and the text encoder's output where asked for; or
one descriptor for each picture.

What it yields depends on the block alone, not on what else is encoded or where.
"""

import math
from typing import Final

import numpy as np
import torch

from steps.data.encoding.descriptors import TENSOR
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.encoding.latents_artifact import EncodedBlock
from steps.data.encoding.patch_features import PatchFeatures
from steps.data.encoding.plan import Block
from steps.data.latents.block import WRITTEN_TOKEN_IDS, Array, to_bytes
from steps.device import choose_device
from steps.errors import StepError
from steps.model.families import denoiser_of
from steps.model.pretrained import load_vae

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# So many pictures of the first block of every shard are decoded again and compared.
CHECKED_SAMPLES: Final = 4


class BlockEncoder:
    def __init__(self, settings: EncoderSettings) -> None:
        """Load the models, onto the GPU where this worker has one."""
        self._settings, self._device = settings, worker_device()
        self._vae = load_vae(settings.pretrained, DTYPES[settings.precision]).to(self._device)
        denoiser, dtype = denoiser_of(settings.pretrained), torch.float32 if settings.caption_embeddings else None
        self._reader = denoiser.reader(settings.pretrained, settings.caption_length, dtype)
        if settings.caption_embeddings:
            self._reader.to(self._device)
        vision, side = settings.features, settings.features_side
        self._features = PatchFeatures(vision, side, self._device) if vision is not None else None

    def __call__(self, block: Block, pixels: Array, captions: list[str], written: list[str]) -> EncodedBlock:
        """Return a block of pictures, uint8 [rows, H, W, 3], their captions, and Recaption's, if any (empty: none)."""
        tensors = self.encode(pixels, captions)
        if written:
            # A sample without one has its original caption twice.
            both = [own or original for own, original in zip(written, captions, strict=True)]
            tensors[WRITTEN_TOKEN_IDS] = self._reader.tokens(both).numpy()
        for name in ("mean", "std"):
            if not np.isfinite(tensors[name]).all():
                raise StepError(
                    f"encode: {block[0]} block {block[1]}: the VAE's {name} is not finite in "
                    f"{self._settings.precision}; set encode.precision to float32"
                )
        return EncodedBlock(
            content=to_bytes(tensors),
            sums=moments_sums(tensors["mean"], tensors["std"]),
            psnr_db=self.psnr_db(pixels, tensors["mean"]) if block[1] == 0 else math.nan,
            written=sum(map(bool, written)),
        )

    @torch.inference_mode()
    def encode(self, pixels: Array, captions: list[str]) -> dict[str, Array]:
        """Return the tensors of a block of pictures, uint8 [rows, H, W, 3], and their captions."""
        means, stds, features = [], [], []
        for start in range(0, len(pixels), self._settings.batch_size):
            batch = self._to_device(pixels[start : start + self._settings.batch_size])
            if self._features is not None:
                features.append(self._features.of(batch))
            posterior = self._vae.encode(batch).latent_dist
            means.append(posterior.mean.to("cpu", torch.float16))
            stds.append(posterior.std.to("cpu", torch.float16))
        token_ids = self._reader.tokens(captions)
        tensors: dict[str, Array] = {
            "mean": torch.cat(means).numpy(),
            "std": torch.cat(stds).numpy(),
            "token_ids": token_ids.numpy(),
        }
        if features:
            tensors["features"] = torch.cat(features).numpy()
        if self._settings.caption_embeddings:
            tensors["embeddings"] = self._embed(token_ids).numpy()
        return tensors

    @torch.inference_mode()
    def psnr_db(self, pixels: Array, mean: Array) -> float:
        """Return how alike the first pictures and their decoded latents are: peak signal-to-noise ratio, averaged."""
        latents = torch.from_numpy(mean[:CHECKED_SAMPLES]).to(self._device, self._vae.dtype)
        decoded = (self._vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1).cpu()
        wanted = torch.from_numpy(pixels[:CHECKED_SAMPLES].copy()).permute(0, 3, 1, 2).float() / 255
        errors = (decoded - wanted).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
        return float((-10 * errors.log10()).mean())

    def _to_device(self, pixels: Array) -> torch.Tensor:
        """Return pictures as the VAE wants them: [rows, 3, H, W] in [-1, 1]."""
        batch = torch.from_numpy(pixels.copy()).to(self._device).permute(0, 3, 1, 2)
        return (batch.float() / 127.5 - 1).to(self._vae.dtype)

    def _embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        parts = torch.split(token_ids, self._settings.batch_size)
        return torch.cat([self._reader.encode(part)[0].to("cpu", torch.float16) for part in parts])


class BlockDescriber:
    def __init__(self, settings: EncoderSettings) -> None:
        """Load the vision model, onto the GPU where this worker has one."""
        assert settings.features is not None
        self._vision = PatchFeatures(settings.features, 1, worker_device(), "encode.descriptors")
        self._batch_size = settings.batch_size

    def __call__(self, block: Block, pixels: Array, captions: list[str], written: list[str]) -> EncodedBlock:
        step = self._batch_size
        found = [self._vision.describe(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        return EncodedBlock(to_bytes({TENSOR: torch.cat(found).numpy()}))


def worker_device() -> torch.device:
    """Return what a worker computes on, and have it give the same results each time."""
    device = choose_device()
    if device.type == "cpu":
        # One worker for each core: they would only wait for each other.
        torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    return device


def moments_sums(mean: Array, std: Array) -> list[float]:
    """Return a block's elements a channel, each channel's sum, and its sum of squares (mean^2 + std^2 for a latent)."""
    wide_mean, wide_std = mean.astype(np.float64), std.astype(np.float64)
    axes = (0, *range(2, mean.ndim))
    squares = (wide_mean**2 + wide_std**2).sum(axis=axes)
    elements = mean.size // mean.shape[1]
    return [float(elements), *wide_mean.sum(axis=axes).tolist(), *squares.tolist()]
