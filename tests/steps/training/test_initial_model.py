"""A second phase: it begins with the first one's model, at another resolution."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from steps.model.pretrained import folder_digest
from tests.steps.training.conftest import MakeJob
from tests.steps.training.jobs import Job
from tests.steps.training.tiny_model import write_latents

# So small a rate leaves float32 weights as they were.
STILL = {"initial_weights": "model", "learning_rate": 1e-30, "weight_decay": 0.0, "ema_decay": 0.0}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> Job:
    job = Job(tmp_path_factory.mktemp("first"), name="first").write(pretrained, latents)
    job.run()
    return job


def give_model(job: Job, former: Job) -> None:
    channel = job.base / "input" / "data" / "initial_model"
    channel.mkdir()
    with tarfile.open(channel / "model.tar.gz", "w:gz") as tar:
        tar.add(former.model_dir, arcname=".")


def test_it_begins_with_the_former_model_at_another_resolution(tmp_path: Path, pretrained: Path, first: Job) -> None:
    larger = write_latents(tmp_path / "latents", pretrained, shape=(4, 8, 8))
    job = Job(tmp_path / "second", {**STILL, "training_samples": 16}, "second").write(pretrained, larger)
    give_model(job, first)
    job.run()
    expected, found = first.unet(), job.unet()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    scratch = load_file(pretrained / "unet" / "diffusion_pytorch_model.safetensors")
    assert any(not np.array_equal(expected[name], scratch[name]) for name in expected)


def test_its_lineage_leads_back_to_the_first(make_job: MakeJob, first: Job) -> None:
    job = make_job(initial_weights="model", training_samples=16)
    give_model(job, first)
    job.run()
    lineage = job.lineage()
    assert lineage["initial_unet"] == folder_digest(first.model_dir / "unet")
    assert (lineage["initial_model"]["job_name"], lineage["initial_model"]["seen_samples"]) == ("first", 96)


def test_without_the_channel_it_says_what_to_do(make_job: MakeJob) -> None:
    job = make_job(initial_weights="model")
    assert job.start().wait() == [1]
    assert "no channel initial_model: add it" in job.failure
