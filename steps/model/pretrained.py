"""Loads the parts of a model from a folder as diffusers saves it.

Reads <folder>/{vae,text_encoder,tokenizer,scheduler}/, and any part that is asked for by its class; writes nothing,
looks nothing up on a network, and loads weights from safetensors alone. The libraries are imported when a part is asked
for: diffusers takes seconds. What is returned is typed as Any: the libraries are typed in parts only.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from params import families
from steps.errors import StepError
from steps.model.digest import folder_digest as folder_digest
from steps.model.json_object import read_object

# How diffusers names them: what each sampler of the settings is.
SAMPLERS: Final = {"ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler", "euler": "EulerDiscreteScheduler"}
# No download, no pickle.
LOCAL_SAFETENSORS: Final = {"local_files_only": True, "use_safetensors": True}


def load_vae(folder: Path, dtype: torch.dtype) -> Any:
    """Return the AutoencoderKL of <folder>/vae, frozen and in evaluation mode."""
    return load_part("diffusers", "AutoencoderKL", folder / families.VAE, dtype).requires_grad_(False).eval()


def load_text_encoder(
    folder: Path, dtype: torch.dtype, part: str = families.TEXT_ENCODER, kind: str = "CLIPTextModel"
) -> Any:
    """Return a text encoder, frozen and in evaluation mode."""
    return load_part("transformers", kind, folder / part, dtype).requires_grad_(False).eval()


def load_tokenizer(folder: Path, name: str = families.TOKENIZER, kind: str = "CLIPTokenizer") -> Any:
    load = getattr(library("transformers"), kind).from_pretrained
    part = _file(folder / name, "tokenizer_config.json").parent
    return loaded(part, lambda: load(part, local_files_only=True))


def load_noise_scheduler(folder: Path, **changes: Any) -> Any:
    """Return <folder>/scheduler, whichever sampler it is, as a DDPMScheduler with some changes of configuration."""
    config = scheduler_config(folder) | changes
    from_config = library("diffusers").DDPMScheduler.from_config
    return loaded(folder / families.SCHEDULER, lambda: from_config(config))


def scheduler_config(folder: Path) -> dict[str, Any]:
    return read_object(_file(folder / families.SCHEDULER, families.SCHEDULER_CONFIG_FILE))


def part_config(folder: Path, part: str) -> dict[str, Any]:
    """Return what <folder>/<part>/config.json says."""
    return read_object(_file(folder / part, families.CONFIG_FILE))


def empty_model(model: str, config: Mapping[str, Any]) -> Any:
    """Return a model of diffusers of a configuration whose weights have shapes and no memory (the meta device)."""
    from_config = getattr(library("diffusers"), model).from_config
    with torch.device("meta"):
        return from_config(dict(config))


def empty_text_encoders(folder: Path, family: families.Family) -> dict[str, Any]:
    """Return the text encoders that a folder of a family has, by their part, likewise without memory."""
    made = {}
    for part in family.text.values():
        if part not in family.optional or (folder / part).is_dir():
            model = getattr(library("transformers"), family.classes[part][1])
            with torch.device("meta"):
                made[part] = model(model.config_class.from_dict(part_config(folder, part)))
    return made


def flow_schedule(shift: float) -> dict[str, Any]:
    """Return the keys by which schedulers know flow and the shift of its timesteps, those of one and of the other."""
    return {"prediction_type": families.FLOW_PREDICTION, "use_flow_sigmas": True, "flow_shift": shift, "shift": shift}


def sampler(name: str, config: Mapping[str, Any], for_flow: Sequence[str] = ()) -> Any:
    """Return the scheduler `ddim`, `dpm++` or `euler` on the noise schedule of another scheduler's configuration.

    DDIM is told not to clip: its default is for pixels in [-1, 1], and latents lie outside. (stable-diffusion-2-base
    says the same in its scheduler_config.json.) `for_flow` are the samplers that a pipeline draws with where its model
    predicts flow; for `euler` it is then another class.
    """
    if name not in SAMPLERS:
        raise StepError(f"sampler: {name!r} is none of {', '.join(SAMPLERS)}")
    if families.predicted(config) != families.FLOW:
        changes = {"clip_sample": False} if name == "ddim" else {}
        return getattr(library("diffusers"), SAMPLERS[name]).from_config(config, **changes)
    if name not in for_flow:
        raise StepError(f"sampler: {name} cannot draw with a model that predicts flow: set {' or '.join(for_flow)}")
    kind = families.FLOW_SCHEDULER if name == "euler" else SAMPLERS[name]
    shift = config.get("shift", config.get("flow_shift", 1.0))
    return getattr(library("diffusers"), kind).from_config(config, **flow_schedule(shift))


def library(name: str) -> Any:
    """Return a library, imported and quiet: a job's log is no terminal."""
    imported: Any = importlib.import_module(name)
    imported.utils.logging.disable_progress_bar()
    return imported


def load_part(of: str, model: str, part: Path, dtype: torch.dtype) -> Any:
    """Return a part with its weights, as a model of the library `of`."""
    _file(part, families.CONFIG_FILE)
    load = getattr(library(of), model).from_pretrained
    return loaded(part, lambda: load(part, dtype=dtype, **LOCAL_SAFETENSORS))


def _file(part: Path, file: str) -> Path:
    if not (part / file).is_file():
        raise StepError(f"{part}: no {file}; this must be a folder as diffusers saves it")
    return part / file


def loaded(part: Path, load: Callable[[], Any]) -> Any:
    """Return what `load` returns. Raises StepError that names the part and says why, in one line."""
    try:
        return load()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StepError(f"{part}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
