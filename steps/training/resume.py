"""Where a training begins: at its newest checkpoint, on however many ranks, or at the beginning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from params.model import Model
from steps.errors import StepError
from steps.training.checkpoint_folder import Checkpoint, CheckpointFolder
from steps.training.ranks import World
from steps.training.state import TrainingState


class Beginning(Model):
    """What is known before the first step."""

    seen_samples: int = 0
    """Samples that the weights have learnt from."""
    skipped_steps: int = 0
    """Steps left out so far."""
    log: str = ""
    """The training log so far."""


def prepare(first: CheckpointFolder, job_name: str, settings: Mapping[str, Any]) -> CheckpointFolder:
    """Return the folder with the checkpoints of a job's training; `first` is that of the first one of these settings.

    A finished training is not gone on with by another job: whoever runs it again wants it trained again. The job that
    finished it, restarted, finds its weights and exports them again. So does a job that differs in `settings`: they
    decide no weight, but are part of SageMaker's cache key, and no reason to pay for the same weights twice.
    """
    folder = first.newest_generation()
    folder.remove_partial()
    finished = folder.finished()
    if finished is None or finished.job_name == job_name:
        return folder
    changed = [name for name, value in finished.settings.items() if settings.get(name, value) != value]
    if changed:
        print(
            f"{folder.folder}: finished by {finished.job_name}; new: {', '.join(changed)}; the weights stay",
            flush=True,
        )
        return folder
    print(f"{folder.folder}: finished by {finished.job_name}; {job_name} begins afresh", flush=True)
    return first.begin_afresh()


def resume(state: TrainingState, folder: CheckpointFolder | None, world: World) -> Beginning:
    """Put the newest checkpoint into the state of every rank; `folder` is given on the head rank alone.

    Only the head reads: a host that joins needs no copy of the checkpoint volume.
    """
    checkpoint = folder.newest() if folder is not None else None
    found = world.broadcast_json(_beginning(checkpoint).model_dump() if checkpoint else None)
    if found is None:
        return Beginning()
    if checkpoint is not None:
        print(f"going on from {checkpoint.manifest.seen_samples} samples", flush=True)
        _check(state, checkpoint)
    for group, tensors in state.tensors().items():
        world.spread(tensors, checkpoint.tensors[group] if checkpoint is not None else {})
    return Beginning.model_validate(found)


def _beginning(checkpoint: Checkpoint) -> Beginning:
    manifest = checkpoint.manifest
    return Beginning(seen_samples=manifest.seen_samples, skipped_steps=manifest.skipped_steps, log=checkpoint.log)


def _check(state: TrainingState, checkpoint: Checkpoint) -> None:
    for group, tensors in state.tensors().items():
        if _shapes(checkpoint.tensors.get(group, {})) != _shapes(tensors):
            raise StepError(
                f"checkpoint of {checkpoint.manifest.seen_samples} samples: its {group} are another model's"
            )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[object, ...]]:
    return {name: (*tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
