"""Training on latents of several shapes: the same model on any number of ranks, wherever it was interrupted."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from params.programs import TrainArguments
from steps.container import Container
from steps.data.loading.latents import LatentsDataset
from steps.errors import StepError
from steps.training.assembly import warn_of_small_buckets
from steps.training.online import _orders
from tests.steps.training.jobs import Job
from tests.steps.training.tiny_model import write_latents

SHAPES = ((4, 8, 2), (4, 4, 4), (4, 2, 8))
SETTINGS: dict[str, object] = {"precision": "float64", "training_samples": 80, "noise_offset": 0.1}
SLOW: dict[str, Any] = {"TEST_HOOK": "slow_steps", "TEST_STEP_S": "0.1"}


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    return write_latents(folder, pretrained, train=19, heldout=5, buckets=SHAPES)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> Job:
    job = Job(tmp_path_factory.mktemp("unbroken"), dict(SETTINGS)).write(pretrained, latents)
    job.run()
    return job


def assert_same_model(job: Job, other: Job) -> None:
    expected, found = other.unet(), job.unet()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)
    assert job.log()[-1]["validation_loss"] == pytest.approx(other.log()[-1]["validation_loss"], rel=1e-9)


def test_two_ranks_killed_on_the_way_and_gone_on_with_by_one_train_the_same_model(
    tmp_path: Path, pretrained: Path, latents: Path, unbroken: Job
) -> None:
    job = Job(tmp_path / "job", {**SETTINGS, "micro_batch_size": 2}).write(pretrained, latents)
    running = job.start(ranks=2, **SLOW)
    running.until("checkpoint ", timeout_s=60)
    running.send(signal.SIGKILL)
    running.wait()
    assert not job.model_dir.exists()
    job.name = "job-2"
    assert "going on from" in job.run().output
    assert_same_model(job, unbroken)


def test_a_step_learns_from_the_shapes_of_all_buckets(unbroken: Job) -> None:
    entries = [entry for entry in unbroken.log() if "training_loss" in entry]
    assert entries[-1]["seen_samples"] == 80
    assert all(np.isfinite(entry["training_loss"]) and entry["gradient_norm"] > 0 for entry in entries)


def test_a_bucket_smaller_than_a_global_batch_is_named(latents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = LatentsDataset(latents)
    warn_of_small_buckets(dataset.order("train", 0, 19))
    assert capsys.readouterr().out == ""
    warn_of_small_buckets(dataset.order("train", 0, 20))
    said = capsys.readouterr().out
    assert said.count("has 19 samples, so a global batch of 20 holds some of them more than once") == len(SHAPES)


def test_online_encoding_refuses_latents_in_buckets(tmp_path: Path, latents: Path) -> None:
    channels = tmp_path / "input" / "data"
    channels.mkdir(parents=True)
    (channels / "latents").symlink_to(latents)
    container = Container({"SAGEMAKER_BASE_DIR": str(tmp_path)})
    with pytest.raises(StepError, match="online encoding knows squares alone: run Encode with max_bucket_ratio 1"):
        _orders(TrainArguments(shards_uri="s3://bucket/shards"), container)
