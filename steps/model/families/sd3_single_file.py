"""Writes a Stable Diffusion 3 as one file, in the layout that Stability AI published it in.

Reads <folder>/{transformer,vae,text_encoder*,scheduler}/; writes NAME.safetensors. ComfyUI and diffusers'
from_single_file read this layout: the names are those that diffusers' convert_sd3_transformer_checkpoint_to_diffusers
takes apart. Text encoders that the folder lacks are not in the file. `python -m steps export` calls it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from params.families import VAE
from steps.errors import StepError
from steps.model.families.single_file import Tensors, renamed, save, vae_layout, weights_of
from steps.model.pretrained import part_config, scheduler_config

TRANSFORMER: Final = "transformer"
CLIP_L, CLIP_G, T5 = "text_encoder", "text_encoder_2", "text_encoder_3"
PUBLISHED: Final = {CLIP_L: "clip_l", CLIP_G: "clip_g", T5: "t5xxl"}
PROJECTION: Final = "text_projection.weight"
POOLED: Final = "y_embedder.mlp.0.weight"
# What ComfyUI takes every model of this layout for (comfy/model_detection.py, latent_formats.py, supported_models.py).
COMFY_HEAD_WIDTH: Final = 64
COMFY_VAE: Final = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
COMFY_SHIFT: Final = 3.0


def write_single_file(folder: Path, file: Path, title: str) -> list[str]:
    """Write a folder's model into one file; return what users must know. Raises StepError for what has no place."""
    texts = {part: weights_of(folder / part) for part in PUBLISHED if (folder / part).is_dir()}
    network, clip_l = _transformer(weights_of(folder / TRANSFORMER)), texts.get(CLIP_L)
    if clip_l is not None:
        projection = clip_l.pop(PROJECTION)
        if CLIP_G in texts and texts[CLIP_G][PROJECTION].shape == projection.shape:
            what = f"{CLIP_L} and {CLIP_G} are both {len(projection)} wide"
            raise StepError(f"--single-file: {what}: readers tell them apart by it")
        # Readers take CLIP-L's projection for the identity, so the layer that reads its vectors does it.
        width, pooled = len(projection), network[POOLED]
        folded = pooled[:, :width].float() @ projection.float()
        network[POOLED] = torch.cat([folded.to(pooled.dtype), pooled[:, width:]], dim=1)
    if T5 in texts:
        # diffusers does not know that they are one, and leaves this one without a value.
        texts[T5]["encoder.embed_tokens.weight"] = texts[T5]["shared.weight"].clone()
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in network.items()}
    vae = part_config(folder, VAE)
    tensors |= vae_layout(vae, weights_of(folder / VAE))
    for part, weights in texts.items():
        tensors |= {f"text_encoders.{PUBLISHED[part]}.transformer.{name}": one for name, one in weights.items()}
    save(file, tensors, {"title": title})
    return list(_notes(part_config(folder, TRANSFORMER), vae, scheduler_config(folder)))


def _transformer(tensors: Tensors) -> Tensors:
    """Return the network's weights by their published names: of queries, keys and values one matrix."""
    named = renamed(TRANSFORMER, tensors)
    last = max(int(name.split(".")[1]) for name in named if name.startswith("joint_blocks."))
    for queries in [name for name in named if re.search(r"attn2?\.q\.", name)]:
        parts = [named.pop(re.sub(r"\.q\.", f".{x}.", queries)) for x in "qkv"]
        named[re.sub(r"\.q\.", ".qkv.", queries)] = torch.cat(parts)
    # Shift and scale are the other way round where a layer has nothing else.
    for layer in ("final_layer", f"joint_blocks.{last}.context_block"):
        for name in (f"{layer}.adaLN_modulation.1.{kind}" for kind in ("weight", "bias")):
            named[name] = torch.cat(named[name].chunk(2)[::-1])
    return named


def _notes(config: Mapping[str, Any], vae: Mapping[str, Any], schedule: Mapping[str, Any]) -> Iterator[str]:
    heads, layers, shift = config["num_attention_heads"], config["num_layers"], schedule.get("shift", COMFY_SHIFT)
    known = (heads, COMFY_HEAD_WIDTH) == (layers, config["attention_head_dim"])
    if not known or any(vae.get(name) != value for name, value in COMFY_VAE.items()):
        yield (
            "this has not Stable Diffusion 3's shape: diffusers draws with the file, but ComfyUI knows only as many "
            "layers as heads, each 64 wide, and Stable Diffusion 3's own VAE"
        )
    elif shift != COMFY_SHIFT:
        yield f"ComfyUI shifts timesteps by {COMFY_SHIFT:g}: connect its ModelSamplingSD3 node, with shift {shift:g}"
