"""A StableDiffusion3Pipeline's folder small enough to train in a test, with all three text encoders."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import T5Config

from tests.steps.training.tiny_model import LETTERS, clip_config, clip_tokenizer

# Typed in parts only.
diffusers: Any = importlib.import_module("diffusers")
transformers: Any = importlib.import_module("transformers")

LATENT_SHAPE = (16, 4, 4)
CLIP_LENGTH = 6
T5_LENGTH = 10
ID_COUNT = 2 * CLIP_LENGTH + T5_LENGTH
WIDTH = 24
CLIP_L, CLIP_G = 8, 12


def write_sd3(folder: Path, lacking: tuple[str, ...] = ()) -> Path:
    """Write a random pipeline without some of its parts."""
    torch.manual_seed(3)
    clips = [_clip(width) for width in (CLIP_L, CLIP_G)]
    pipeline = diffusers.StableDiffusion3Pipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=2,
            latent_channels=LATENT_SHAPE[0],
            scaling_factor=1.5,
            shift_factor=0.06,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=clips[0],
        text_encoder_2=clips[1],
        text_encoder_3=_t5(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=_t5_tokenizer(),
        transformer=tiny_transformer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    index = json.loads((folder / "model_index.json").read_text())
    for part in lacking:
        shutil.rmtree(folder / part)
        index[part] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def tiny_transformer() -> Any:
    """Return a random SD3Transformer2DModel whose output is not zero, as it would be at first."""
    network = diffusers.SD3Transformer2DModel(
        sample_size=LATENT_SHAPE[-1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=CLIP_L + CLIP_G,
        pos_embed_max_size=6,
        qk_norm="rms_norm",
    )
    return network


def _clip(width: int) -> Any:
    return transformers.CLIPTextModelWithProjection(clip_config(clip_tokenizer(), width, CLIP_LENGTH, layers=2))


def _t5() -> Any:
    sizes = {"d_model": WIDTH, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    return transformers.T5EncoderModel(T5Config(vocab_size=len(_t5_tokenizer()), **sizes))


def _t5_tokenizer() -> Any:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *LETTERS, *(f"▁{letter}" for letter in LETTERS)]
    vocabulary = [(piece, 0.0 if number < 3 else -2.0) for number, piece in enumerate(pieces)]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=T5_LENGTH)
