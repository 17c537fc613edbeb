"""Trains the small VAE: 64 x 64 pictures to 8 x 8 latents of 4 channels and back.

Reads the pictures of the grid without the held-out tenth; returns a diffusers AutoencoderKL whose latents have mean 0
in each channel and, times the scaling factor, a standard deviation of 1. `python -m shapes train-models` runs it.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from shapes import picture_set, pictures

BATCH_SIZE: Final = 16
KL_WEIGHT: Final = 1e-3
SQUARE_WEIGHT: Final = 1.0
# What the shapes need. Latents that suit photographs are harder to learn: of the same drawings a UNet on these reached
# FID 2.9 and CLIP score 0.87, on latents of shapes 1.4 and 0.91.
WIDTH: Final = 32
# The shape fills a tenth of a picture but is what a person looks at.
SHAPE_WEIGHT: Final = 4.0
SHAPE_THRESHOLD: Final = 0.2
LATENT_CHANNELS: Final = 4
# exp(-5 / 2): the noise of the posterior starts small, since with 1 nothing gets through at first.
INITIAL_LOG_VARIANCE: Final = -5.0
EVALUATION_BATCH_SIZE: Final = 64


def build() -> AutoencoderKL:
    """Return the untrained VAE: four levels (factor 8) of one width.

    No residual blocks going down and one going up (layers_per_block=0): most of the compute at full resolution buys
    nothing for flat colours. After 90 CPU-seconds this restores with 24 dB, a pyramid of 16 to 64 channels with 21.
    """
    vae = AutoencoderKL(
        block_out_channels=(WIDTH,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=0,
        norm_num_groups=1,
        latent_channels=LATENT_CHANNELS,
        sample_size=pictures.MODEL_SIZE_PX,
    )
    with torch.no_grad():
        vae.quant_conv.bias[LATENT_CHANNELS:] = INITIAL_LOG_VARIANCE
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
    return vae


def train(pixels: Tensor, cycles: Sequence[int], seed: int = 0) -> AutoencoderKL:
    """Train on pictures, (N, 3, 64, 64) uint8, in cycles, each with a new optimizer; return the VAE, normalised."""
    torch.manual_seed(seed)
    vae = build().to(memory_format=torch.channels_last).train()
    # The plain attention: the fused one is several times slower backwards on a CPU for 64 positions.
    vae.set_attn_processor(AttnProcessor())
    for number, steps in enumerate(cycles):
        torch.manual_seed(seed + number)
        batches, title = _batches(pixels, steps), f"VAE {number + 1}/{len(cycles)}"
        loss = functools.partial(loss_of, vae)
        picture_set.fit(vae, batches, steps, loss, title, betas=(0.9, 0.99), weight_decay=0.0)
    normalise(vae.eval(), pixels)
    return vae


def loss_of(vae: AutoencoderKL, batch: Tensor) -> Tensor:
    """Return the loss of a batch in -1..1: weighted L1 and squares of the pixels, and the KL of each latent value."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(batch).latent_dist
        restored = vae.decode(posterior.sample()).sample
    error = restored.float() - batch
    weight = 1.0 + SHAPE_WEIGHT * shape_mask(batch)
    pixels = (weight * (error.abs() + SQUARE_WEIGHT * error.square())).mean()
    divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
    loss: Tensor = pixels + KL_WEIGHT * divergence
    return loss


def shape_mask(batch: Tensor) -> Tensor:
    """Return 1 where a pixel differs from its drawing's median colour, the background, (N, 1, 64, 64); else 0."""
    background = batch.flatten(2).median(dim=2).values[:, :, None, None]
    return ((batch - background).abs().amax(dim=1, keepdim=True) > SHAPE_THRESHOLD).float()


@torch.no_grad()
def normalise(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Give the latents mean 0 and one standard deviation in all channels, and set the scaling factor to undo it.

    Stable Diffusion has one scaling factor and no shift, so shift and relative scale of each channel go into the 1 x 1
    convolutions on both sides of the latents: the pictures stay what they were.
    """
    means = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in _chunks(pixels)])
    shift, scale = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    common = scale.square().mean().sqrt()
    ratio = common / scale
    into, out = vae.quant_conv, vae.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ shift
    out.weight /= ratio[None, :, None, None]
    into.bias[:LATENT_CHANNELS] = (into.bias[:LATENT_CHANNELS] - shift) * ratio
    into.weight[:LATENT_CHANNELS] *= ratio[:, None, None, None]
    into.bias[LATENT_CHANNELS:] += 2.0 * ratio.log()
    vae.register_to_config(scaling_factor=round(1.0 / common.item(), 5))


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return pictures, uint8, encoded to the mode of their posterior and decoded again."""
    restored = [vae.decode(vae.encode(chunk).latent_dist.mode()).sample for chunk in _chunks(pixels)]
    return picture_set.to_pixels(torch.cat(restored))


@torch.no_grad()
def latents(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return the scaled latents of pictures, (N, 4, 8, 8): what a UNet sees."""
    factor: float = vae.config["scaling_factor"]
    return factor * torch.cat([vae.encode(chunk).latent_dist.mode() for chunk in _chunks(pixels)])


def psnr_db(pixels: Tensor, restored: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio of pictures, uint8, in decibels."""
    squares = (pixels.float() - restored.float()).square().mean(dim=(1, 2, 3)).clamp_min(1e-6)
    return float((10.0 * torch.log10(255.0**2 / squares)).mean())


def _chunks(pixels: Tensor) -> Iterator[Tensor]:
    for chunk in torch.split(pixels, EVALUATION_BATCH_SIZE):
        yield picture_set.to_models(chunk).to(memory_format=torch.channels_last)


def _batches(pixels: Tensor, steps: int) -> Iterator[Tensor]:
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < BATCH_SIZE:
            order = torch.randperm(len(pixels))
        rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        yield picture_set.to_models(pixels[rows]).to(memory_format=torch.channels_last)
