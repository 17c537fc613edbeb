"""LoRA adapters beside a model: writing them, loading them, and adding them to its weights.

Reads and writes <folder>/adapters/NAME/pytorch_lora_weights.safetensors, in diffusers' format; for other programs,
kohya's. What a model's own training left is named in its lineage.json, under `lora`.
"""

import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from params.families import SD3, UNET, Family
from params.files import whole_file
from params.layout import ADAPTER_FILE, ADAPTERS_DIR, LINEAGE_FILE, MERGED_ADAPTERS_DIR
from steps.errors import StepError
from steps.model.families import denoiser_in, load_pipeline
from steps.model.json_object import read_object
from steps.model.portable import CLIPS, PREFIX, make_portable
from steps.model.pretrained import library

# Of each layer's two, in the formats that diffusers reads.
_FIRST_MATRIX: Final = re.compile(r"lora_A\.|lora_down\.|lora(_linear_layer)?\.down\.")


def save_adapter(
    folder: Path, network: Mapping[str, Tensor], text_encoder: Mapping[str, Tensor], family: Family = UNET
) -> None:
    """Write an adapter whose alpha is its rank, as published ones of a family are named."""
    published = {f"{PREFIX}{name.removeprefix(PREFIX)}": tensor for name, tensor in text_encoder.items()}
    pipeline = getattr(library("diffusers"), family.pipeline)
    pipeline.save_lora_weights(folder, dict(network), published or None, weight_name=ADAPTER_FILE)


def adapter_files(folder: Path) -> dict[str, Path]:
    """Return the adapters beside a model, by name."""
    return {file.parent.name: file for file in sorted((folder / ADAPTERS_DIR).glob(f"*/{ADAPTER_FILE}"))}


def own_adapter(folder: Path) -> str:
    """Return the name of the adapter that a model's training left beside it; empty: none, or it is merged."""
    lora = _lora(folder)
    return str(lora["name"]) if lora.get("output") == "separate" else ""


def own_file(folder: Path) -> Path | None:
    """Return the file of the adapter that a model's training left, whether it is merged or not; None without one."""
    lora = _lora(folder)
    where = ADAPTERS_DIR if lora.get("output") == "separate" else MERGED_ADAPTERS_DIR
    return folder / where / str(lora["name"]) / ADAPTER_FILE if lora else None


def _lora(folder: Path) -> dict[str, Any]:
    lineage = folder / LINEAGE_FILE
    return (read_object(lineage).get("lora") or {}) if lineage.is_file() else {}


def load_adapter(pipeline: Any, name: str, file: Path) -> None:
    """Add an adapter, in diffusers' format or kohya's, to a pipeline. Raises StepError where it is another model's."""
    try:
        with safe_open(file, "pt") as tensors:
            keys = list(tensors.keys())
        with warnings.catch_warnings():
            # peft warns of a second adapter: several, side by side, are what is wanted.
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name, local_files_only=True)
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise StepError(f"{file}: no adapter of this model: {' '.join(str(error).split())[:200]}") from None
    layers = [layer for part in _changed_parts(pipeline) for layer in getattr(pipeline, part).modules()]
    found = sum(name in getattr(layer, "lora_A", ()) for layer in layers)
    listed = sum(bool(_FIRST_MATRIX.search(key)) for key in keys)
    if found != listed or any("dora_scale" in key for key in keys):
        raise StepError(f"{file}: no LoRA of this model: it changes {listed} layers, of which the model has {found}")


def _changed_parts(pipeline: Any) -> list[str]:
    return [denoiser_in(pipeline).part, *(part for part in CLIPS if getattr(pipeline, part, None) is not None)]


def load_judged(folder: Path, dtype: torch.dtype) -> Any:
    """Return the pipeline of a folder with its own training's adapter, if it is separate, added to the weights."""
    pipeline, name, file = load_pipeline(folder, dtype), own_adapter(folder), own_file(folder)
    return merged(pipeline, name, file) if name and file else pipeline


def merged(pipeline: Any, name: str, file: Path) -> Any:
    """Return a pipeline with an adapter added to its weights, which then are like any others."""
    load_adapter(pipeline, name, file)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return pipeline


def merge(folder: Path, name: str) -> None:
    """Add a folder's adapter to the weights of its parts; the adapter's file is kept where nobody adds it again."""
    pipeline = merged(load_pipeline(folder, torch.float32), name, adapter_files(folder)[name])
    for part in _changed_parts(pipeline):
        getattr(pipeline, part).save_pretrained(folder / part, safe_serialization=True)
        make_portable(folder / part)
    shutil.rmtree(folder / MERGED_ADAPTERS_DIR, ignore_errors=True)
    (folder / ADAPTERS_DIR).rename(folder / MERGED_ADAPTERS_DIR)


def write_kohya(source: Path, target: Path) -> None:
    """Write an adapter of a UNet in kohya's format, which ComfyUI, A1111 and Forge read; StepError for any other."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    weights = load_file(source)
    if any(name.startswith(f"{SD3.denoiser}.") for name in weights):
        raise StepError("lora_kohya: of a transformer none is written; ComfyUI reads the adapter's own file")
    convert: Any = convert_state_dict_to_kohya
    # The name that text encoders of Stable Diffusion 1 and 2 have there; diffusers writes that of SDXL's first.
    tensors = {name.replace("lora_te1_", "lora_te_"): value for name, value in convert(weights).items()}
    with whole_file(target) as partial:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
