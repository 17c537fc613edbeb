"""Checkpoints are written in the background, by one job at a time."""

import errno
import os
import resource
import threading
from pathlib import Path

import pytest
import torch

from steps.errors import StepError
from steps.training.checkpoint_folder import CheckpointFolder, CheckpointManifest
from steps.training.checkpoint_writer import CheckpointWriter, lock_folder

MANIFEST = CheckpointManifest(seen_samples=8, global_batch_size=8, world_size=1, skipped_steps=0)
TENSORS = {"weights": {"a": torch.ones(3)}}


def test_training_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    disk = threading.Event()
    write = CheckpointFolder.write
    monkeypatch.setattr(folder, "write", lambda *args: disk.wait(10) and write(folder, *args))
    writer = CheckpointWriter(folder)
    writer.submit(MANIFEST, TENSORS, "")
    assert folder.newest() is None
    disk.set()
    writer.wait()
    assert folder.newest() is not None
    assert capsys.readouterr().out == f"checkpoint {tmp_path}/samples-000000000008\n"
    writer.close()


def test_a_checkpoint_that_cannot_be_written_ends_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(CheckpointFolder(tmp_path / "file" / "folder", keep=2))
    writer.submit(MANIFEST, TENSORS, "")
    with pytest.raises(StepError, match="the checkpoint could not be written"):
        writer.submit(MANIFEST, TENSORS, "")
    writer.close()


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.write(MANIFEST, TENSORS, "")
    writer = CheckpointWriter(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to let a file grow, as on a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        writer.submit(MANIFEST.model_copy(update={"seen_samples": 16}), {"weights": {"a": torch.ones(10_000)}}, "")
        with pytest.raises(StepError, match="the checkpoint could not be written"):
            writer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        writer.close()
    newest = folder.newest()
    assert newest is not None
    assert newest.manifest.seen_samples == 8
    folder.remove_partial()
    assert [path.name for path in tmp_path.iterdir()] == ["samples-000000000008"]


def test_a_read_only_volume_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    writer = CheckpointWriter(CheckpointFolder(tmp_path / "training", keep=2))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        writer.submit(MANIFEST, TENSORS, "")
        with pytest.raises(StepError, match="Read-only file system"):
            writer.wait()
    writer.close()


def test_two_jobs_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(StepError, match="another job trains with the same settings"):
        lock_folder(tmp_path, wait_s=0.1)
    lock_folder(tmp_path, wait_s=0.0).close()
