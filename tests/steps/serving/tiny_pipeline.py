"""A random pipeline folder with the structure of the real one, small enough to draw in milliseconds."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from tests.steps.training.tiny_model import clip_config

TOKENS = 8
WIDTH = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_pipeline(folder: Path, seed: int = 5) -> Path:
    torch.manual_seed(seed)
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_pipeline() -> Any:
    tokenizer = _tokenizer()
    scheduler: Any = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer, WIDTH, TOKENS, intermediate=16)),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        sample_size=32,
    )


def _unet() -> Any:
    return UNet2DConditionModel(
        sample_size=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def _tokenizer() -> CLIPTokenizer:
    """Return a byte-pair tokenizer without merges: every letter is a token."""
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    entries = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *ends.values()]
    return CLIPTokenizer(
        vocab={entry: index for index, entry in enumerate(entries)},
        merges=[],
        unk_token=ends["eos_token"],
        pad_token=ends["eos_token"],
        model_max_length=TOKENS,
        **ends,
    )
