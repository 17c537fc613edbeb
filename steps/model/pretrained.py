"""Loads the parts of Stable Diffusion from a folder as diffusers saves it.

Reads <folder>/{unet,vae,text_encoder,tokenizer,scheduler}/; writes nothing, looks nothing up on a network, and loads
weights from safetensors alone. The libraries are imported when a part is asked for: diffusers takes seconds. What is
returned is typed as Any: the libraries are typed in parts only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from steps.errors import StepError
from steps.model.digest import folder_digest as folder_digest
from steps.model.json_object import read_object

UNET: Final = "unet"
VAE: Final = "vae"
TEXT_ENCODER: Final = "text_encoder"
TOKENIZER: Final = "tokenizer"
SCHEDULER: Final = "scheduler"
CONFIG_FILE: Final = "config.json"
SCHEDULER_CONFIG_FILE: Final = "scheduler_config.json"

# How diffusers names them: what each sampler of the settings is.
SAMPLERS: Final = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}

# No download, no pickle.
_LOCAL_SAFETENSORS: Final = {"local_files_only": True, "use_safetensors": True}


def load_vae(folder: Path, dtype: torch.dtype) -> Any:
    """Return the AutoencoderKL of <folder>/vae, frozen and in evaluation mode."""
    return _frozen(_from_pretrained("diffusers", "AutoencoderKL", folder / VAE, dtype))


def load_text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    """Return the CLIPTextModel of <folder>/text_encoder, frozen and in evaluation mode."""
    return _frozen(_from_pretrained("transformers", "CLIPTextModel", folder / TEXT_ENCODER, dtype))


def load_tokenizer(folder: Path) -> Any:
    """Return the CLIPTokenizer of <folder>/tokenizer."""
    part = _part(folder / TOKENIZER, "tokenizer_config.json")
    load = _library("transformers").CLIPTokenizer.from_pretrained
    return _loaded(part, lambda: load(part, local_files_only=True))


def load_noise_scheduler(folder: Path, **changes: Any) -> Any:
    """Return the noise schedule of <folder>/scheduler as a DDPMScheduler, with some keys of its configuration changed.

    It may have been saved as any sampler.
    """
    config = scheduler_config(folder) | changes
    from_config = _library("diffusers").DDPMScheduler.from_config
    return _loaded(folder / SCHEDULER, lambda: from_config(config))


def scheduler_config(folder: Path) -> dict[str, Any]:
    """Return what <folder>/scheduler says."""
    return read_object(_part(folder / SCHEDULER, SCHEDULER_CONFIG_FILE) / SCHEDULER_CONFIG_FILE)


def unet_config(folder: Path) -> dict[str, Any]:
    """Return what <folder>/unet/config.json says."""
    return part_config(folder, UNET)


def part_config(folder: Path, part: str) -> dict[str, Any]:
    """Return what <folder>/<part>/config.json says."""
    return read_object(_part(folder / part, CONFIG_FILE) / CONFIG_FILE)


def new_unet(folder: Path, seed: int) -> Any:
    """Return an untrained float32 UNet2DConditionModel of <folder>/unet/config.json; the seed decides its weights."""
    config = unet_config(folder)
    from_config = _library("diffusers").UNet2DConditionModel.from_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _loaded(folder / UNET, lambda: from_config(config))


def empty_unet(config: Mapping[str, Any]) -> Any:
    """Return a UNet2DConditionModel of a configuration whose weights have shapes and no memory (the meta device)."""
    return _empty("UNet2DConditionModel", config)


def empty_vae(config: Mapping[str, Any]) -> Any:
    """Return an AutoencoderKL of a configuration, likewise without memory."""
    return _empty("AutoencoderKL", config)


def empty_text_encoder(config: Mapping[str, Any]) -> Any:
    """Return a CLIPTextModel of a configuration, likewise without memory."""
    library = _library("transformers")
    with torch.device("meta"):
        return library.CLIPTextModel(library.CLIPTextConfig.from_dict(dict(config)))


def load_unet(folder: Path, dtype: torch.dtype) -> Any:
    """Return the trained UNet2DConditionModel of <folder>/unet."""
    return _from_pretrained("diffusers", "UNet2DConditionModel", folder / UNET, dtype)


def load_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """Return the StableDiffusionPipeline of a folder, without a safety checker."""
    _part(folder, "model_index.json")
    _library("transformers")
    load = _library("diffusers").StableDiffusionPipeline.from_pretrained
    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return _loaded(folder, lambda: load(folder, dtype=dtype, **without, **_LOCAL_SAFETENSORS))


def load_single_file(file: Path, folder: Path) -> Any:
    """Return the float32 pipeline of a single file, whose configurations are those of a folder."""
    _library("transformers")
    load = _library("diffusers").StableDiffusionPipeline.from_single_file
    options = {"config": str(folder), "local_files_only": True, "torch_dtype": torch.float32}
    return _loaded(file, lambda: load(str(file), **options))


def sampler(name: str, config: Any) -> Any:
    """Return the scheduler `ddim`, `dpm++` or `euler` on the noise schedule of another scheduler's configuration.

    DDIM is told not to clip: its default is for pixels in [-1, 1], and latents lie outside. (stable-diffusion-2-base
    says the same in its scheduler_config.json.)
    """
    if name not in SAMPLERS:
        raise StepError(f"sampler: {name!r} is none of {', '.join(SAMPLERS)}")
    scheduler = getattr(_library("diffusers"), SAMPLERS[name])
    return scheduler.from_config(config, clip_sample=False) if name == "ddim" else scheduler.from_config(config)


def _empty(model: str, config: Mapping[str, Any]) -> Any:
    from_config = getattr(_library("diffusers"), model).from_config
    with torch.device("meta"):
        return from_config(dict(config))


def _library(name: str) -> Any:
    library: Any = importlib.import_module(name)
    # A job's log is no terminal.
    library.utils.logging.disable_progress_bar()
    return library


def _from_pretrained(library: str, model: str, part: Path, dtype: torch.dtype) -> Any:
    _part(part, CONFIG_FILE)
    load = getattr(_library(library), model).from_pretrained
    return _loaded(part, lambda: load(part, dtype=dtype, **_LOCAL_SAFETENSORS))


def _part(part: Path, file: str) -> Path:
    if not (part / file).is_file():
        raise StepError(f"{part}: no {file}; this must be a folder as diffusers saves it")
    return part


def _loaded(part: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StepError(f"{part}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None


def _frozen(model: Any) -> Any:
    model.requires_grad_(False)
    model.eval()
    return model
