"""What a training is: its identity, without which none may share checkpoints, and the lineage of its model."""

import hashlib
import importlib.metadata
import platform
import statistics
from pathlib import Path
from typing import Any, Final

import torch

from params.families import FAMILIES
from params.layout import MANIFEST_FILE, VALIDATION_LOSS
from params.model import Decides
from params.programs import TrainArguments
from steps.artifact import Identity, digest
from steps.data.latents.latents_manifest import LatentsManifest
from steps.data.storage import Storage
from steps.errors import StepError
from steps.model.digest import encoder_digests, folder_digest
from steps.model.families import denoiser_of
from steps.model.pretrained import scheduler_config
from steps.training.lora import lora_record
from steps.training.ranks import World
from steps.training.training_log import TrainingLog

# Speed, monitoring, place and cost: none of these changes the weights (except by rounding).
WITHOUT_EFFECT: Final = TrainArguments.names(Decides.RUNNING, Decides.MONEY, Decides.PLACE)
LIBRARIES: Final = ("torch", "diffusers", "transformers", "peft", "numpy", "safetensors")
PYTHON: Final = {"python": platform.python_version()}
_ROOT: Final = Path(__file__).parents[2]


def training_identity(
    arguments: TrainArguments, pretrained: Path, initial: Path, latents: Path | str
) -> dict[str, Any]:
    """Return what decides the weights, read by one rank alone; StepError without latents, or of another encoder."""
    try:
        manifest_bytes = Storage(str(latents)).read(MANIFEST_FILE)
    except OSError as error:
        file = f"{latents}/{MANIFEST_FILE}"
        raise StepError(f"{file}: cannot be read ({error}): the latents were never finished") from None
    denoiser = denoiser_of(pretrained)
    digests = encoder_digests(pretrained, denoiser.family)
    LatentsManifest.model_validate_json(manifest_bytes).require(**digests)
    from_scratch = arguments.initial_weights == "scratch"
    return {
        "settings": arguments.deciding(TrainArguments.model_fields.keys() - WITHOUT_EFFECT),
        "latents": hashlib.sha256(manifest_bytes).hexdigest(),
        "text_encoder": digests["text_encoder_digest"],
        denoiser.part: denoiser.config(pretrained) if from_scratch else folder_digest(initial / denoiser.part),
        "scheduler": scheduler_config(pretrained),
    }


def identity_digest(identity: Identity) -> str:
    """Return the name under which a training's checkpoints live: 16 hexadecimal digits."""
    return digest(identity)[:16]


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
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES} | PYTHON,
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
