"""The lineage of a model: what is needed to make it again, and what it took."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import statistics
from pathlib import Path
from typing import Any, Final

import torch

from params.families import FAMILIES
from params.layout import VALIDATION_LOSS
from params.programs import TrainArguments
from steps.training.lora import lora_record
from steps.training.ranks import World
from steps.training.training_log import TrainingLog

LIBRARIES: Final = ("torch", "diffusers", "transformers", "peft", "numpy", "safetensors")
_ROOT: Final = Path(__file__).parents[2]


def lineage(
    arguments: TrainArguments,
    identity: dict[str, Any],
    job_name: str,
    world: World,
    seen_samples: int,
    skipped_steps: int,
    log: TrainingLog,
) -> dict[str, Any]:
    """Return the model's lineage, ready for JSON."""
    rates = [entry["images_per_s"] for entry in log.entries if "images_per_s" in entry]
    return {
        "job_name": job_name,
        "settings": arguments.model_dump(mode="json"),
        "code_digest": code_digest(),
        "latents_manifest_digest": identity["latents"],
        "text_encoder_digest": identity["text_encoder"],
        **{f"initial_{of.denoiser}": identity[of.denoiser] for of in FAMILIES if of.denoiser in identity},
        "lora": lora_record(arguments),
        "seen_samples": seen_samples,
        "skipped_steps": skipped_steps,
        "training_loss": log.last("training_loss"),
        VALIDATION_LOSS: log.last(VALIDATION_LOSS),
        "world_size": world.size,
        "device": device_name(world.device),
        "images_per_s": statistics.median(rates) if rates else None,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
    }


def code_digest() -> str:
    """Return a sha256 over the sources that run inside a job; it does not depend on where they are installed."""
    digest = hashlib.sha256()
    for room in ("params", "steps"):
        for path in sorted((_ROOT / room).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def device_name(device: torch.device) -> str:
    """Return the model of the GPU, or the kind of CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
