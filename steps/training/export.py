"""Writes the trained model: a folder that StableDiffusionPipeline.from_pretrained loads, safetensors only.

Reads the pretrained folder, and copies its VAE, text encoder and tokenizer, whose values made the latents; all parts
are in float32 and named as published checkpoints are.
Writes <model>/{unet,vae,text_encoder,tokenizer,scheduler}/, model_index.json, training_log.jsonl, lineage.json and,
last, checksums.json; of a LoRA, adapters/NAME/, or merged_adapters/NAME/ where the weights hold it already.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any, Final

from params.layout import ADAPTERS_DIR, LINEAGE_FILE, TRAINING_LOG_FILE
from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.adapters import merge
from steps.model.digest import write_checksums
from steps.model.portable import make_portable
from steps.model.pretrained import SAMPLERS, TEXT_ENCODER, TOKENIZER, UNET, VAE, sampler, scheduler_config
from steps.model.pretrained import SCHEDULER as SCHEDULER_DIR
from steps.training.diffusion import noise_schedule_changes
from steps.training.lora import take_off
from steps.training.state import TrainingState

MODEL_INDEX_FILE: Final = "model_index.json"
# The pipeline's default sampler; every other one is made from its configuration.
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
    """Write the model, with the UNet's current weights (see TrainingState.averaged)."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in _COPIED:
        _copy_part(pretrained / part, folder / part)
        make_portable(folder / part)
    unet = take_off(state.unet, arguments, folder / ADAPTERS_DIR / arguments.lora_name)
    unet.save_pretrained(folder / UNET, safe_serialization=True)
    _sampling_scheduler(pretrained, arguments).save_pretrained(folder / SCHEDULER_DIR)
    _write_json(folder / MODEL_INDEX_FILE, _model_index())
    if arguments.lora_rank and arguments.lora_output == "merged":
        merge(folder, arguments.lora_name)
        make_portable(folder / TEXT_ENCODER)
    write_record(folder, log, lineage)
    write_checksums(folder)


def write_record(folder: Path, log: str, lineage: dict[str, Any]) -> None:
    """Write the training log and the lineage.

    They are part of the model and of the job's own output, where they can be fetched without the model's gigabytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINING_LOG_FILE).write_text(log, encoding="utf-8")
    _write_json(folder / LINEAGE_FILE, lineage)


def _copy_part(source: Path, target: Path) -> None:
    """Copy a part, without files that need unpickling."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.py"))
    if not any(target.iterdir()):
        raise StepError(f"{source}: it contains nothing to export")


def _sampling_scheduler(pretrained: Path, arguments: TrainArguments) -> Any:
    """Return the pretrained schedule as a sampler with the UNet's type of prediction.

    Offset 1 and a last step that ends at the first alpha are the choices of stable-diffusion-2-base.
    """
    config = scheduler_config(pretrained) | {"steps_offset": 1, "set_alpha_to_one": False}
    return sampler(SCHEDULER, config | noise_schedule_changes(arguments))


def _model_index() -> dict[str, Any]:
    """Return the index that diffusers writes for a StableDiffusionPipeline without a safety checker."""
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
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
