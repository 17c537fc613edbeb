"""Makes a training longer: it goes on from a shorter one of the same settings, where the checkpoint volume has one.

Reads <digest>/identity.json of the trainings on the volume; release 0.1.0 wrote none, so that the digest and
<digest>/samples-*/training_log.jsonl have to tell. Writes identity.json into the folder of this training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from params.files import write_text
from params.layout import TRAINING_LOG_FILE
from params.model import Decides
from params.programs import TrainArguments
from steps.artifact import IDENTITY_FILE, Identity, differences, digest, from_text, to_text
from steps.errors import StepError
from steps.training.batch_plan import BatchPlan
from steps.training.checkpoint_folder import CheckpointFolder
from steps.training.identity import identity_digest

LENGTH = "training_samples"


@dataclass(frozen=True)
class Neighbour:
    """Another training with checkpoints on the same volume."""

    checkpoints: CheckpointFolder
    asked: Identity
    """The identity of the training that a job asks for."""

    @property
    def seen_samples(self) -> int:
        """Samples of the newest checkpoint."""
        return int(self.checkpoints.paths()[-1].name.rpartition("-")[2])

    @cached_property
    def identity(self) -> Identity | None:
        """What it is; None where its release recorded nothing and it differs in more than its length."""
        path = self.checkpoints.folder / IDENTITY_FILE
        if path.is_file():
            return from_text(path.read_text(encoding="utf-8"))
        end = _planned_samples(self.checkpoints.paths()[-1] / TRAINING_LOG_FILE)
        name = self.checkpoints.folder.name.partition("-")[0]
        lengths = range(end - self.asked["settings"]["global_batch_size"] + 1, end + 1)
        guesses = ({**self.asked, "settings": self.asked["settings"] | {LENGTH: length}} for length in lengths)
        return next((guess for guess in guesses if identity_digest(guess) == name), None)

    @property
    def differs_in_length_alone(self) -> bool:
        """Whether the training asked for is the same one, longer or shorter."""
        return self.identity is not None and _without_length(self.identity) == _without_length(self.asked)

    def __str__(self) -> str:
        state = "finished" if self.checkpoints.finished() else "unfinished"
        return f"{self.checkpoints.folder.name}, {state} at {self.seen_samples:,} samples,"


def lengthen(folder: CheckpointFolder, asked: Identity, plan: BatchPlan) -> CheckpointFolder:
    """Return `folder`, which has no checkpoint yet, going on from the training that it makes longer, if there is one.

    Names the other trainings of the volume, and what makes this one another. Raises StepError where a training of the
    same settings has seen more samples than are asked for, or its learning rate was made for another end.
    """
    neighbours = [Neighbour(checkpoints, asked) for checkpoints in folder.neighbours()]
    same = [neighbour for neighbour in neighbours if neighbour.differs_in_length_alone]
    if not same:
        for neighbour in neighbours:
            why = differences(neighbour.identity, asked) if neighbour.identity else "its release recorded no settings"
            print(f"{folder.folder.name} begins at sample 0: {neighbour} is another training: {why}", flush=True)
        return folder
    longest = max(same, key=lambda neighbour: neighbour.seen_samples)
    _check(longest, plan)
    print(f"{folder.folder.name} goes on from {longest} with {asked['settings'][LENGTH]:,} as its end", flush=True)
    return folder.going_on_from(longest.checkpoints)


def record_identity(folder: CheckpointFolder, identity: Identity) -> None:
    """Write down what the training is: a later job can then say what makes it another one."""
    write_text(folder.folder / IDENTITY_FILE, to_text(identity))


def _check(neighbour: Neighbour, plan: BatchPlan) -> None:
    assert neighbour.identity is not None
    former, wanted = neighbour.identity["settings"], neighbour.asked["settings"]
    end, former_end = plan.total_samples(wanted[LENGTH]), plan.total_samples(former[LENGTH])
    otherwise = "or begin a new training with another TrainingRun (training_run)"
    schedule = wanted["learning_rate_schedule"]
    if schedule != "constant" and end != former_end:
        raise StepError(
            f"{LENGTH} {wanted[LENGTH]}: {neighbour} was made for {former[LENGTH]}, and the {schedule} schedule takes "
            f"the learning rate to that end: it cannot get another; ask for {former[LENGTH]} {otherwise}"
        )
    if neighbour.seen_samples > end:
        raise StepError(
            f"{LENGTH} {wanted[LENGTH]}: {neighbour} is the same training and has seen more already; ask for "
            f"{neighbour.seen_samples} or more {otherwise}"
        )


def _without_length(identity: Identity) -> str:
    left_out = TrainArguments.names(Decides.EXTENT)
    settings = {name: value for name, value in identity["settings"].items() if name not in left_out}
    return digest({**identity, "settings": settings})


def _planned_samples(log: Path) -> int:
    """Return the end that a training's last log line with a rate was on its way to; 0 where there is none."""
    entries: list[dict[str, Any]] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    last = next((entry for entry in reversed(entries) if "remaining_s" in entry), None)
    return int(last["seen_samples"]) + round(last["remaining_s"] * last["images_per_s"]) if last else 0
