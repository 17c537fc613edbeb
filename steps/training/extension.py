"""Makes a training longer: it continues a shorter one with the same settings, if the checkpoint volume has one.

Reads <digest>/identity.json of the trainings on the volume. Release 0.1.0 wrote none: there
<digest>/samples-*/training_log.jsonl gives an estimate of the length, and the digest proves it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from params.layout import TRAINING_LOG_FILE
from steps.artifact import IDENTITY_FILE, Identity, differences, from_text
from steps.errors import StepError
from steps.training.batch_plan import BatchPlan
from steps.training.checkpoint_folder import CheckpointFolder
from steps.training.identity import identity_digest

LENGTH = "training_samples"


@dataclass(frozen=True)
class Neighbour:
    """Another training with checkpoints on the same volume."""

    checkpoints: CheckpointFolder
    identity: Identity | None
    """None if its release recorded nothing and more than its length differs from the training that a job asks for."""

    @property
    def seen_samples(self) -> int:
        """Samples of the newest checkpoint."""
        return int(self.checkpoints.paths()[-1].name.rpartition("-")[2])

    def __str__(self) -> str:
        state = "finished" if self.checkpoints.finished() else "unfinished"
        return f"{self.checkpoints.folder.name}, {state} at {self.seen_samples:,} samples,"


def lengthen(folder: CheckpointFolder, asked: Identity, plan: BatchPlan) -> CheckpointFolder:
    """Return `folder`, which has no checkpoint yet, as the continuation of a shorter training if there is one.

    Names the other trainings on the volume, and how this one differs. Raises StepError if a training with the same
    settings has seen more samples than asked for, or its learning rate was scheduled for another end.
    """
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
    _check(longest, former_length, asked["settings"], plan)
    print(f"{folder.folder.name} goes on from {longest} with {length:,} as its end", flush=True)
    return folder.going_on_from(longest.checkpoints)


def _check(neighbour: Neighbour, former_length: int, settings: Identity, plan: BatchPlan) -> None:
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
