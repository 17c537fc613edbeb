"""Writes the trained model: a folder that its family's pipeline of diffusers loads, safetensors only.

Reads the pretrained folder, and copies its VAE, text encoders and tokenizers, whose values made the latents, in float32
and named as published checkpoints are; and its safety checker as it is.
Writes <model>/<part>/, model_index.json, training_log.jsonl, lineage.json and, last, checksums.json; of a LoRA,
adapters/NAME/, or merged_adapters/NAME/ where the weights hold it already.
"""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from params.families import GUARDS, INDEX_FILE, SAFETY_CHECKER, SCHEDULER
from params.layout import ADAPTERS_DIR, LINEAGE_FILE, TRAINING_LOG_FILE
from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.adapters import merge
from steps.model.digest import write_checksums
from steps.model.families import denoiser_of
from steps.model.portable import make_portable
from steps.model.pretrained import scheduler_config
from steps.training.block_aids import PROJECTOR
from steps.training.diffusion import noise_schedule_changes
from steps.training.lora import take_off
from steps.training.state import TrainingState


def export_model(
    folder: Path,
    pretrained: Path,
    state: TrainingState,
    arguments: TrainArguments,
    log: str,
    lineage: dict[str, Any],
) -> None:
    """Write the model, with the network's current weights (see TrainingState.averaged)."""
    folder.mkdir(parents=True, exist_ok=True)
    denoiser = denoiser_of(pretrained)
    lacking = denoiser.lacking(pretrained)
    for part in denoiser.family.copied:
        if part in lacking:
            continue
        _copy_part(pretrained / part, folder / part)
        make_portable(folder / part)
    guards = _copy_guards(pretrained, folder) if SAFETY_CHECKER in denoiser.family.unused else {}
    network = take_off(state.network, arguments, folder / ADAPTERS_DIR / arguments.lora_name, denoiser.family)
    if hasattr(network, PROJECTOR):
        delattr(network, PROJECTOR)
    network.save_pretrained(folder / denoiser.part, safe_serialization=True)
    changes = noise_schedule_changes(arguments, network.config.sample_size)
    scheduler = denoiser.exported_scheduler(scheduler_config(pretrained) | changes)
    scheduler.save_pretrained(folder / SCHEDULER)
    version = {"_diffusers_version": importlib.metadata.version("diffusers")}
    _write_json(folder / INDEX_FILE, denoiser.family.index(type(scheduler).__name__, lacking) | guards | version)
    if arguments.lora_rank and arguments.lora_output == "merged":
        merge(folder, arguments.lora_name)
    write_record(folder, log, lineage)
    write_checksums(folder)


def _copy_guards(pretrained: Path, folder: Path) -> dict[str, Any]:
    """Copy the safety checker and its feature extractor, where there is one; return what the index says of them."""
    if not any((pretrained / SAFETY_CHECKER).glob("*.safetensors")):
        if (pretrained / SAFETY_CHECKER).is_dir():
            print(f"note: {pretrained / SAFETY_CHECKER}: no safetensors: the model goes without it", flush=True)
        return {}
    there = [part for part in GUARDS if (pretrained / part).is_dir()]
    for part in there:
        _copy_part(pretrained / part, folder / part)
    return {part: GUARDS[part] for part in there} | {f"requires_{SAFETY_CHECKER}": True}


def write_record(folder: Path, log: str, lineage: dict[str, Any]) -> None:
    """Write training log and lineage: into the model, and into the job's own output, which is small to fetch."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINING_LOG_FILE).write_text(log, encoding="utf-8")
    _write_json(folder / LINEAGE_FILE, lineage)


def _copy_part(source: Path, target: Path) -> None:
    """Copy a part, without files that need unpickling."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.py"))
    if not any(target.iterdir()):
        raise StepError(f"{source}: it contains nothing to export")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
