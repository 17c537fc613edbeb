"""The initial weights of a training: new ones from a configuration, pretrained ones, or another training's model.

Reads the channels `pretrained` and, for `initial_weights` model, `initial_model` (model.tar.gz). Writes the unpacked
archive to the job's volume, once for each host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from params.layout import INITIAL_MODEL_CHANNEL, LINEAGE_FILE, MODEL_ARCHIVE, PRETRAINED_CHANNEL, SOURCES_FILE
from params.programs import TrainArguments
from steps.container import Container
from steps.errors import StepError
from steps.model.adapters import own_adapter
from steps.model.archive import unpack_model
from steps.model.digest import folder_family
from steps.model.json_object import read_object

# On the job's volume: the root file system of an instance is small.
UNPACKED_DIR: Final = "/opt/ml/output/initial_model"


def initial_folder(arguments: TrainArguments, container: Container) -> Path:
    """Return the diffusers folder with the initial weights."""
    if arguments.initial_weights == "model":
        return container.path(UNPACKED_DIR)
    return container.channel_dir(PRETRAINED_CHANNEL)


def unpack_initial_model(arguments: TrainArguments, container: Container) -> None:
    """Unpack the initial model, if any, before a rank of this host starts. Raises StepError if it is unusable."""
    if arguments.initial_weights != "model":
        return
    channel = container.channel_dir(INITIAL_MODEL_CHANNEL)
    if not channel.is_dir():
        raise StepError(
            f"initial_weights is model and there is no channel {INITIAL_MODEL_CHANNEL}: add it with the former "
            "training's model.tar.gz, or set initial_weights to scratch or pretrained"
        )
    folder = initial_folder(arguments, container)
    unpack_model(channel / MODEL_ARCHIVE, folder)
    if name := own_adapter(folder):
        print(
            f"note: training begins at the model without its adapter {name}, which lies beside its weights", flush=True
        )


def former_lineage(arguments: TrainArguments, container: Container) -> dict[str, Any] | None:
    """Return the lineage of the initial model, or None without one."""
    if arguments.initial_weights != "model":
        return None
    path = initial_folder(arguments, container) / LINEAGE_FILE
    return read_object(path) if path.is_file() else None


def base_model(arguments: TrainArguments, container: Container, identity: dict[str, Any]) -> str | None:
    """Return what the training with an identity began with, as people know it."""
    if arguments.initial_weights == "scratch":
        return None
    folder = initial_folder(arguments, container)
    if (folder / LINEAGE_FILE).is_file():
        return f"the model of job {read_object(folder / LINEAGE_FILE).get('job_name')}"
    part = folder_family(folder).denoiser
    source = read_object(folder / SOURCES_FILE).get(part) if (folder / SOURCES_FILE).is_file() else None
    return f"{source['source']} {source['revision']}".strip() if source else f"{part} sha256:{identity[part]}"
