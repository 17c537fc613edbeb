"""Leaves the trained model: a folder that StableDiffusionPipeline.from_pretrained loads, safetensors only.

Reads the pretrained folder, whose VAE, text encoder and tokenizer are copied byte for byte: the latents were made by
exactly these. Writes <model>/{unet,vae,text_encoder,tokenizer,scheduler}/, model_index.json, training_log.jsonl,
lineage.json and, last, checksums.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any, Final

from params.layout import LINEAGE_FILE, TRAINING_LOG_FILE
from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.digest import write_checksums
from steps.model.pretrained import SAMPLERS, TEXT_ENCODER, TOKENIZER, UNET, VAE, sampler, scheduler_config
from steps.model.pretrained import SCHEDULER as SCHEDULER_DIR
from steps.training.diffusion import noise_schedule_changes
from steps.training.state import TrainingState

MODEL_INDEX_FILE: Final = "model_index.json"
# What the pipeline samples with until it is told otherwise; every other sampler is made from its configuration.
SCHEDULER: Final = "ddim"
_COPIED: Final = (VAE, TEXT_ENCODER, TOKENIZER)


def export_model(
    folder: Path,
    pretrained: Path,
    state: TrainingState,
    arguments: TrainArguments,
    log: str,
    lineage: dict[str, Any],
) -> None:
    """Write the model, with the UNet's weights as they are now (see TrainingState.averaged)."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in _COPIED:
        _copy_part(pretrained / part, folder / part)
    state.unet.save_pretrained(folder / UNET, safe_serialization=True)
    _sampling_scheduler(pretrained, arguments).save_pretrained(folder / SCHEDULER_DIR)
    _write_json(folder / MODEL_INDEX_FILE, _model_index())
    write_record(folder, log, lineage)
    write_checksums(folder)


def write_record(folder: Path, log: str, lineage: dict[str, Any]) -> None:
    """Write how the model came about: its training log and its lineage.

    It lies with the model, and once more in the job's own output: few kilobytes to fetch beside many gigabytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINING_LOG_FILE).write_text(log, encoding="utf-8")
    _write_json(folder / LINEAGE_FILE, lineage)


def _copy_part(source: Path, target: Path) -> None:
    """Copy a part; files that would have to be unpickled are not taken along."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.py"))
    if not any(target.iterdir()):
        raise StepError(f"{source}: nothing in it that can be exported")


def _sampling_scheduler(pretrained: Path, arguments: TrainArguments) -> Any:
    """Return the pretrained schedule as a sampler, told what the UNet predicts.

    Offset 1 and the last step ending at the first alpha are stable-diffusion-2-base's own choices.
    """
    config = scheduler_config(pretrained) | {"steps_offset": 1, "set_alpha_to_one": False}
    return sampler(SCHEDULER, config | noise_schedule_changes(arguments))


def _model_index() -> dict[str, Any]:
    """Return what diffusers writes beside a StableDiffusionPipeline without a safety checker."""
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": importlib.metadata.version("diffusers"),
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", SAMPLERS[SCHEDULER]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
