"""Folders of published models with configurations alone, from which `python -m steps memory` made its figures.

    python -m tests.steps.model.published FOLDER

writes FOLDER/sd2, FOLDER/sd3 and FOLDER/sd3_1b, for `python -m steps memory --pretrained-dir FOLDER/sd3`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from params.families import CONFIG_FILE, SD3, UNET, VAE, Family

CLIP_TOKENS = 77
# 512 in the published tokenizer; the pipeline cuts at 256.
T5_TOKENS = 512
CLIP = {"vocab_size": 49_408, "max_position_embeddings": CLIP_TOKENS}
# https://huggingface.co/stabilityai/stable-diffusion-2-base
SD2_UNET = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SD2_TEXT = CLIP | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
SD2_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
# https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers
SD3_MEDIUM = {
    "_class_name": "SD3Transformer2DModel",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
SD3_VAE = SD2_VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
SD3_TEXT = {
    "text_encoder": CLIP
    | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "text_encoder_2": CLIP
    | {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    "text_encoder_3": {
        "d_model": 4096,
        "d_ff": 10_240,
        "d_kv": 64,
        "num_heads": 64,
        "num_layers": 24,
        "vocab_size": 32_128,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
    },
}
# Not published: the smaller model of params/sd3_budget.yaml (docs/pretrained.md), with T5 v1.1 XL's encoder.
SD3_1B = SD3_MEDIUM | {
    "caption_projection_dim": 1280,
    "joint_attention_dim": 2048,
    "num_attention_heads": 20,
    "num_layers": 20,
    "qk_norm": "rms_norm",
}
SD3_1B_TEXT = SD3_TEXT | {
    "text_encoder_3": SD3_TEXT["text_encoder_3"] | {"d_model": 2048, "d_ff": 5120, "num_heads": 32}
}


def write_published(folder: Path, name: str) -> Path:
    """Write the folder of a model by its name in memory.yaml."""
    if name == "Stable Diffusion 2":
        return _write(folder, UNET, SD2_UNET, SD2_VAE, {"text_encoder": SD2_TEXT})
    if name == "Stable Diffusion 3 1B":
        return _write(folder, SD3, SD3_1B, SD3_VAE, SD3_1B_TEXT)
    return _write(folder, SD3, SD3_MEDIUM, SD3_VAE, SD3_TEXT)


def _write(folder: Path, family: Family, denoiser: dict[str, Any], vae: dict[str, Any], texts: dict[str, Any]) -> Path:
    for part, config in {family.denoiser: denoiser, VAE: vae, **texts}.items():
        _put(folder / part / CONFIG_FILE, config)
    for tokenizer, encoder in family.text.items():
        length = T5_TOKENS if encoder == "text_encoder_3" else CLIP_TOKENS
        _put(folder / tokenizer / "tokenizer_config.json", {"model_max_length": length})
    _put(folder / "model_index.json", family.index("FlowMatchEulerDiscreteScheduler" if family is SD3 else "DDIM"))
    return folder


def _put(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    for folder_name, model in (
        ("sd2", "Stable Diffusion 2"),
        ("sd3", "Stable Diffusion 3 Medium"),
        ("sd3_1b", "Stable Diffusion 3 1B"),
    ):
        write_published(Path(sys.argv[1]) / folder_name, model)
