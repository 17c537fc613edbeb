"""Where a training begins: at its newest checkpoint, whatever the number of ranks, or at sample 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from steps.errors import StepError
from steps.training.checkpoint_folder import Checkpoint, CheckpointFolder
from steps.training.ranks import World
from steps.training.state import TrainingState


class Beginning(NamedTuple):
    """State of a training before its first step in this job."""

    seen_samples: int = 0
    """Samples that the weights have learnt from."""
    skipped_steps: int = 0
    """Steps skipped so far."""
    log: str = ""
    """The training log so far."""


def prepare(first: CheckpointFolder, job_name: str, settings: Mapping[str, Any]) -> CheckpointFolder:
    """Return the folder with the checkpoints of a job's training; `first` is that of the first with these settings.

    Another job does not resume a finished training: to run it again means to train it again. The job that finished it
    exports the same weights again when it restarts. So does a job that differs in `settings`: they do not affect the
    weights; they only change SageMaker's cache key, and nobody pays for the same weights twice.
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
    """Load the newest checkpoint into all ranks' state; the head alone passes `folder` and reads: others have none."""
    checkpoint = folder.newest() if folder is not None else None
    beginning = Beginning()
    if checkpoint is not None:
        manifest = checkpoint.manifest
        beginning = Beginning(manifest.seen_samples, manifest.skipped_steps, checkpoint.log)
    beginning = Beginning(*world.broadcast_json(beginning))
    if not beginning.seen_samples:
        return beginning
    if checkpoint is not None:
        print(f"going on from {checkpoint.manifest.seen_samples} samples", flush=True)
        _check(state, checkpoint)
    for group, tensors in state.tensors().items():
        world.spread(tensors, checkpoint.tensors[group] if checkpoint is not None else {})
    return beginning


def _check(state: TrainingState, checkpoint: Checkpoint) -> None:
    for group, tensors in state.tensors().items():
        if _shapes(checkpoint.tensors.get(group, {})) != _shapes(tensors):
            raise StepError(
                f"checkpoint of {checkpoint.manifest.seen_samples} samples: its {group} are another model's"
            )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[object, ...]]:
    return {name: (*tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
