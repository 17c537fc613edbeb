"""The small UNet's configuration: what the local run trains from scratch. Its weights are not kept.

Reads nothing, writes nothing: `shapes.train_models` saves it as unet/config.json, in the layout of
stable-diffusion-2-base.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from diffusers import UNet2DConditionModel

from shapes.train_vae import LATENT_CHANNELS

# A UNet2DConditionModel: diffusers ships no types.
Unet: TypeAlias = Any


def build(text_width: int, latent_size: int) -> Unet:
    """Return the untrained UNet for latents (4, latent_size, latent_size) and text states text_width wide."""
    make: Any = UNet2DConditionModel
    return make(
        sample_size=latent_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        # Attention at 4 x 4 alone: two thirds of the compute, and for the same CPU-seconds a CLIP score of 84, not 75.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=text_width,
        # In Stable Diffusion 2 too this number is the count of heads.
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=True,
    )
