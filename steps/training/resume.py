"""Where a training begins: at its newest checkpoint, whatever the number of ranks, or at sample 0.

A training that is asked to be longer continues a shorter one with the same settings, if the checkpoint volume has one:
reads <digest>/identity.json of the trainings there. Release 0.1.0 wrote none: there
<digest>/samples-*/training_log.jsonl gives an estimate of the length, and the digest proves it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from params.layout import TRAINING_LOG_FILE
from steps.artifact import IDENTITY_FILE, Identity, differences, from_text
from steps.errors import StepError
from steps.training.checkpoint_folder import Checkpoint, CheckpointFolder
from steps.training.identity import identity_digest
from steps.training.optimizer_step import BatchPlan
from steps.training.ranks import World
from steps.training.state import TrainingState

LENGTH = "training_samples"


class Beginning(NamedTuple):
    """State of a training before its first step in this job."""

    seen_samples: int = 0
    skipped_steps: int = 0
    log: str = ""


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
    what = f"new: {', '.join(changed)}; the weights stay" if changed else f"{job_name} begins afresh"
    print(f"{folder.folder}: finished by {finished.job_name}; {what}", flush=True)
    return folder if changed else first.begin_afresh()


def resume(state: TrainingState, folder: CheckpointFolder | None, world: World) -> Beginning:
    """Load the newest checkpoint into all ranks' state; the head alone passes `folder` and reads: others have none."""
    checkpoint, beginning = folder.newest() if folder is not None else None, Beginning()
    if checkpoint is not None:
        manifest = checkpoint.manifest
        beginning = Beginning(manifest.seen_samples, manifest.skipped_steps, checkpoint.log)
    beginning = Beginning(*world.broadcast_json(beginning))
    if not beginning.seen_samples:
        return beginning
    if checkpoint is not None:
        print(f"going on from {beginning.seen_samples} samples", flush=True)
        _check(state, checkpoint)
    state.restore(checkpoint.tensors if checkpoint is not None else {})
    return beginning


def _check(state: TrainingState, checkpoint: Checkpoint) -> None:
    for group, tensors in state.expected().items():
        if _shapes(checkpoint.tensors.get(group, {})) != _shapes(tensors):
            seen_samples = checkpoint.manifest.seen_samples
            raise StepError(f"checkpoint of {seen_samples} samples: its {group} are another model's")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[object, ...]]:
    return {name: (*tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Neighbour:
    """Another training with checkpoints on the same volume."""

    checkpoints: CheckpointFolder
    identity: Identity | None
    """None if its release recorded nothing and more than its length differs from the training that a job asks for."""

    @property
    def seen_samples(self) -> int:
        return int(self.checkpoints.paths()[-1].name.rpartition("-")[2])

    def __str__(self) -> str:
        state = "finished" if self.checkpoints.finished() else "unfinished"
        return f"{self.checkpoints.folder.name}, {state} at {self.seen_samples:,} samples,"


def lengthen(folder: CheckpointFolder, asked: Identity, plan: BatchPlan) -> CheckpointFolder:
    """Return `folder` as the continuation of a shorter training, if any; StepError where it cannot be one."""
    neighbours = [Neighbour(checkpoints, _identity(checkpoints, asked)) for checkpoints in folder.neighbours()]
    length = asked["settings"][LENGTH]
    same = [
        (neighbour, neighbour.identity["settings"][LENGTH])
        for neighbour in neighbours
        if neighbour.identity and identity_digest(_of_length(neighbour.identity, length)) == identity_digest(asked)
    ]
    if not same:
        for neighbour in neighbours:
            why = differences(neighbour.identity, asked) if neighbour.identity else "its release recorded no settings"
            print(f"{folder.folder.name} begins at sample 0: {neighbour} is another training: {why}", flush=True)
        return folder
    longest, former_length = max(same, key=lambda pair: pair[0].seen_samples)
    _check_length(longest, former_length, asked["settings"], plan)
    print(f"{folder.folder.name} goes on from {longest} with {length:,} as its end", flush=True)
    return folder.going_on_from(longest.checkpoints)


def _check_length(neighbour: Neighbour, former_length: int, settings: Identity, plan: BatchPlan) -> None:
    length, schedule = settings[LENGTH], settings["learning_rate_schedule"]
    end = plan.total_samples(length)
    otherwise = "or begin a new training with another TrainingRun (training_run)"
    if schedule != "constant" and end != plan.total_samples(former_length):
        raise StepError(
            f"{LENGTH} {length}: {neighbour} was made for {former_length}, and the {schedule} schedule takes "
            f"the learning rate to that end: it cannot be moved; ask for {former_length} {otherwise}"
        )
    if neighbour.seen_samples > end:
        raise StepError(
            f"{LENGTH} {length}: {neighbour} is the same training and has seen more already; ask for "
            f"{neighbour.seen_samples} or more {otherwise}"
        )


def _identity(checkpoints: CheckpointFolder, asked: Identity) -> Identity | None:
    path = checkpoints.folder / IDENTITY_FILE
    if path.is_file():
        return from_text(path.read_text(encoding="utf-8"))
    end = _planned_samples(checkpoints)
    lengths = range(end - asked["settings"]["global_batch_size"] + 1, end + 1)
    guesses = (_of_length(asked, length) for length in lengths)
    name = checkpoints.folder.name.partition("-")[0]
    return next((guess for guess in guesses if identity_digest(guess) == name), None)


def _of_length(identity: Identity, training_samples: int) -> Identity:
    return {**identity, "settings": {**identity["settings"], LENGTH: training_samples}}


def _planned_samples(checkpoints: CheckpointFolder) -> int:
    """Return the end that the newest log line with a rate counted down to; 0 without such a line."""
    lines = (checkpoints.paths()[-1] / TRAINING_LOG_FILE).read_text(encoding="utf-8").splitlines()
    entry = next((entry for entry in map(json.loads, reversed(lines)) if "remaining_s" in entry), None)
    return int(entry["seen_samples"]) + round(entry["remaining_s"] * entry["images_per_s"]) if entry else 0
