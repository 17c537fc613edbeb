"""Checkpoints that do not land in S3 are told of, in the log and as a metric."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from params.layout import CHECKPOINT_METRICS, metric_regex
from steps.training.checkpoint_folder import CheckpointFolder, CheckpointManifest
from steps.training.checkpoint_writer import CheckpointWatch, watching
from tests.steps.data import s3_server
from tests.steps.data.s3_server import BUCKET, S3

NOW_S = 1_000_000.0
URI = f"s3://{BUCKET}/checkpoints/run"


@pytest.fixture
def s3() -> Iterator[S3]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "0123456789abcdef", keep=3)


def write(folder: CheckpointFolder, seen_samples: int, age_s: float) -> Path:
    manifest = CheckpointManifest(seen_samples=seen_samples, global_batch_size=8, world_size=1, skipped_steps=0)
    path = folder.write(manifest, {"weights": {"a": torch.zeros(4)}}, "")
    os.utime(path / "manifest.json", (NOW_S - age_s, NOW_S - age_s))
    return path


def sync(s3: S3, path: Path, *left_out: str) -> None:
    """Copy a checkpoint as SageMaker does."""
    for file in path.iterdir():
        if file.name not in left_out:
            key = f"checkpoints/run/{path.parent.name}/{path.name}/{file.name}"
            s3.client.upload_file(str(file), BUCKET, key)


def watch(folder: CheckpointFolder, max_lag_s: float = 600.0) -> CheckpointWatch:
    return CheckpointWatch(folder, URI, max_lag_s, clock=lambda: NOW_S)


def test_a_checkpoint_that_landed_is_as_old_as_its_writing(s3: S3, folder: CheckpointFolder) -> None:
    sync(s3, write(folder, 8, age_s=300))
    found = watch(folder).look()
    assert (found.newest, found.age_s) == ("samples-000000000008", pytest.approx(300))
    assert (found.waiting, found.lag_s) == (None, 0.0)


def test_one_that_is_missing_a_file_has_not_landed(s3: S3, folder: CheckpointFolder) -> None:
    sync(s3, write(folder, 8, age_s=3000))
    sync(s3, write(folder, 16, age_s=2000), "weights.safetensors")
    write(folder, 24, age_s=1000)
    found = watch(folder).look()
    assert (found.newest, found.age_s) == ("samples-000000000008", pytest.approx(3000))
    assert (found.waiting, found.lag_s) == ("samples-000000000016", pytest.approx(2000))


def test_one_that_is_cut_short_has_not_landed(s3: S3, folder: CheckpointFolder) -> None:
    path = write(folder, 8, age_s=100)
    sync(s3, path)
    s3.client.put_object(Bucket=BUCKET, Key=f"checkpoints/run/{path.parent.name}/{path.name}/manifest.json", Body=b"{")
    assert watch(folder).look().newest is None


def test_a_sync_that_stopped_is_warned_of_and_measured(
    s3: S3, folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    sync(s3, write(folder, 8, age_s=3000))
    write(folder, 16, age_s=2000)
    watch(folder).tell()
    output = capsys.readouterr().out
    measured = [float(re.findall(metric_regex(name), output, re.MULTILINE)[0]) for name in CHECKPOINT_METRICS]
    assert measured == [pytest.approx(3000), pytest.approx(2000)]
    assert "WARNING checkpoints do not land in S3: samples-000000000016 was written 2000 s ago" in output
    assert "the newest there is samples-000000000008, 3000 s old" in output


def test_a_checkpoint_on_its_way_is_no_reason_to_warn(
    s3: S3, folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, 8, age_s=500)
    watch(folder).tell()
    assert "WARNING" not in capsys.readouterr().out


def test_once_a_later_one_landed_the_lag_is_gone(s3: S3, folder: CheckpointFolder) -> None:
    write(folder, 8, age_s=3000)
    seen = watch(folder)
    assert seen.look().lag_s == pytest.approx(3000)
    shutil.rmtree(folder.paths()[0])
    sync(s3, write(folder, 16, age_s=100))
    assert (seen.look().lag_s, seen.look().age_s) == (0.0, pytest.approx(100))


def test_a_prefix_that_may_not_be_listed_is_said_and_stops_nothing(
    s3: S3, folder: CheckpointFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, 8, age_s=0)
    CheckpointWatch(folder, "s3://no-such-bucket-at-all/checkpoints", 600.0).tell()
    output = capsys.readouterr().out
    assert "no-such-bucket-at-all" in output and "Traceback" not in output


def test_only_the_head_rank_with_an_address_watches(folder: CheckpointFolder) -> None:
    for arguments in ((None, URI), (folder, "")):
        with watching(*arguments, 600.0):
            assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint-watch"]
