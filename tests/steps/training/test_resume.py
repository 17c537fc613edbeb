"""A job finds the checkpoints of its own training, although S3 keeps all that was ever written."""

import shutil
from pathlib import Path

import torch

from steps.training.checkpoint_folder import CheckpointFolder, CheckpointManifest
from steps.training.resume import prepare


class Volume:
    """A checkpoint volume, made anew for each job from S3; what is written is copied there, and nothing is deleted."""

    def __init__(self, folder: Path) -> None:
        self.s3, self.local = folder / "s3", folder / "local"
        self.s3.mkdir()

    def start(self, job_name: str) -> CheckpointFolder:
        shutil.rmtree(self.local, ignore_errors=True)
        shutil.copytree(self.s3, self.local)
        return prepare(CheckpointFolder(self.local / "digest", keep=2), job_name, {})

    def train(self, folder: CheckpointFolder, *seen_samples: int) -> None:
        for seen in seen_samples:
            manifest = CheckpointManifest(seen_samples=seen, global_batch_size=8, world_size=1, skipped_steps=0)
            folder.write(manifest, {"weights": {"a": torch.full((2,), float(seen))}}, "")
        shutil.copytree(self.local, self.s3, dirs_exist_ok=True)


def seen(folder: CheckpointFolder) -> int:
    checkpoint = folder.newest()
    return checkpoint.manifest.seen_samples if checkpoint else 0


def test_a_job_that_began_afresh_and_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """It began afresh at each start once: what it removed of the training before it came back from S3."""
    volume = Volume(tmp_path)
    first = volume.start("job-1")
    volume.train(first, 8, 16, 24)
    first.mark_finished("job-1", 24, {})
    volume.train(first)
    second = volume.start("job-2")
    assert seen(second) == 0
    volume.train(second, 8, 16)
    for job in ("job-2", "job-3"):
        again = volume.start(job)
        assert seen(again) == 16, "neither from the beginning nor with the other training's weights"
        assert again.finished() is None
    volume.train(again, 24)
    again.mark_finished("job-3", 24, {})
    volume.train(again)
    assert seen(volume.start("job-3")) == 24
    third = volume.start("job-4")
    assert seen(third) == 0
    volume.train(third, 8)
    assert seen(volume.start("job-4")) == 8


def test_a_job_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    first = volume.start("job-1")
    volume.train(first, 8)
    first.mark_finished("job-1", 8, {})
    volume.train(first)
    for _ in range(3):
        assert seen(volume.start("job-2")) == 0
