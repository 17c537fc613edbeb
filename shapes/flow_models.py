"""The small models once more, in the layout of Stable Diffusion 3: what params/local_flow.yaml starts from.

    python -m shapes flow-models --models shapes/models

Reads MODELS/pretrained/ and MODELS/evaluator/clip/, which train-models wrote. Writes MODELS/pretrained_flow/, renamed
at the end: a StableDiffusion3Pipeline folder whose transformer is a configuration only. Weights that pretrained/ has
are links to it. CLIP-L and CLIP-G are one and the same small CLIP: plain diffusers cannot encode a prompt with one.
"""

import importlib
import shutil
from pathlib import Path
from typing import Any, Final

from shapes.train_models import CLIP_FOLDER, PRETRAINED_FOLDER
from shapes.train_vae import LATENT_CHANNELS

diffusers: Any = importlib.import_module("diffusers")
transformers: Any = importlib.import_module("transformers")

FLOW_FOLDER: Final = "pretrained_flow"
HEADS: Final = 6


def write(models: Path) -> Path:
    """Write the folder beside the one that it is made of, whole or not at all, and return it."""
    source, folder = models / PRETRAINED_FOLDER, models / FLOW_FOLDER
    draft = models / f"{FLOW_FOLDER}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    clip = transformers.CLIPTextModelWithProjection.from_pretrained(models / CLIP_FOLDER).half()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(source / "tokenizer")
    vae = diffusers.AutoencoderKL.from_pretrained(source / "vae").half()
    # The pipeline cannot draw without a shift; this one shifts nothing.
    vae.register_to_config(shift_factor=0.0, _name_or_path="")
    pipeline = diffusers.StableDiffusion3Pipeline(
        vae=vae,
        transformer=build_transformer(clip.config.hidden_size, clip.config.projection_dim, vae.config),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        **dict.fromkeys(("text_encoder", "text_encoder_2"), clip),
        **dict.fromkeys(("tokenizer", "tokenizer_2"), tokenizer),
        **dict.fromkeys(("text_encoder_3", "tokenizer_3")),
    )
    pipeline.save_pretrained(draft)
    next((draft / "transformer").glob("*.safetensors")).unlink()
    _link(draft / "vae", f"../../{PRETRAINED_FOLDER}/vae", "*.safetensors")
    _link(draft / "tokenizer", f"../../{PRETRAINED_FOLDER}/tokenizer")
    _link(draft / "text_encoder_2", "../text_encoder")
    _link(draft / "tokenizer_2", "../tokenizer")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    print(f"wrote {folder}")
    return folder


def build_transformer(text_width: int, pooled_width: int, vae: Any) -> Any:
    """Return the untrained SD3Transformer2DModel for a VAE's latents and two CLIPs of this width each."""
    return diffusers.SD3Transformer2DModel(
        sample_size=vae.sample_size // 2 ** (len(vae.block_out_channels) - 1),
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=4,
        num_attention_heads=HEADS,
        attention_head_dim=32,
        joint_attention_dim=2 * text_width,
        caption_projection_dim=32 * HEADS,
        pooled_projection_dim=2 * pooled_width,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def _link(folder: Path, other: str, names: str = "*") -> None:
    for file in (folder / other).glob(names):
        (folder / file.name).unlink(missing_ok=True)
        (folder / file.name).symlink_to(f"{other}/{file.name}")
