"""Checkpoints are written in the background, by one job at a time."""

from __future__ import annotations

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


def test_two_jobs_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(StepError, match="another job trains with the same settings"):
        lock_folder(tmp_path, wait_s=0.1)
    lock_folder(tmp_path, wait_s=0.0).close()
