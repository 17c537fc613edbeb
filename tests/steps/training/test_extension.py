"""A training is made longer without training anew what it has learnt."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.steps.training.conftest import MakeJob
from tests.steps.training.jobs import Job
from tests.steps.training.test_session import assert_same_bits

SHORT, LONG = 48, 96


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> Job:
    settings = {"training_samples": SHORT, "instance_hour_usd": 36.0}
    job = Job(tmp_path_factory.mktemp("short"), dict(settings)).write(pretrained, latents)
    job.run()
    return job


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> Job:
    job = Job(tmp_path_factory.mktemp("long"), {"training_samples": LONG}).write(pretrained, latents)
    job.run()
    return job


def after(earlier: Job, job: Job) -> Job:
    """Give a job the checkpoint volume that an earlier one left."""
    shutil.copytree(earlier.base / "checkpoints", job.base / "checkpoints")
    return job


def forget_identities(job: Job) -> Job:
    """Leave what release 0.1.0 left, which recorded no identity."""
    for path in job.base.glob("checkpoints/*/identity.json"):
        path.unlink()
    return job


def refusal(job: Job) -> str:
    assert job.start().wait() == [1]
    assert "\n" not in job.failure.strip()
    return job.failure


@pytest.mark.parametrize("recorded", [True, False])
def test_a_finished_training_made_longer_has_the_bits_of_one_that_was_long_from_the_start(
    make_job: MakeJob, short: Job, long: Job, recorded: bool
) -> None:
    job = after(short, make_job(name="job-2", training_samples=LONG, instance_hour_usd=36.0))
    output = (job if recorded else forget_identities(job)).run().output
    assert re.search(r"goes on from [0-9a-f]{16}, finished at 48 samples, with 96 as its end", output)
    assert "going on from 48 samples" in output
    assert_same_bits(job, long)
    trained = [entry["seen_samples"] for entry in job.log() if "training_loss" in entry]
    assert trained == [entry["seen_samples"] for entry in long.log() if "training_loss" in entry]
    costs = [entry["cost_usd"] for entry in job.log() if "cost_usd" in entry]
    assert costs == sorted(costs), "what the shorter one cost counts"


def test_an_unfinished_training_made_longer_goes_on_from_its_newest_checkpoint(
    make_job: MakeJob, short: Job, long: Job
) -> None:
    job = forget_identities(after(short, make_job(name="job-2", training_samples=LONG)))
    for path in job.base.glob("checkpoints/*/finished.json"):
        path.unlink()
    shutil.rmtree(job.checkpoints[-1])
    output = job.run().output
    assert "unfinished at 24 samples" in output
    assert_same_bits(job, long)


def test_a_longer_training_that_was_killed_goes_on_from_its_own_checkpoint(
    make_job: MakeJob, short: Job, long: Job
) -> None:
    job = after(short, make_job(name="job-2", training_samples=LONG))
    running = job.start(TEST_HOOK="slow_steps", TEST_STEP_S="0.1")
    running.until("checkpoint ")
    running.send(signal.SIGKILL)
    running.wait()
    output = job.run().output
    assert "going on from 72 samples" in output
    assert "as its end" not in output
    assert_same_bits(job, long)


def test_the_shorter_training_is_left_as_it_was(make_job: MakeJob, short: Job) -> None:
    job = after(short, make_job(name="job-2", training_samples=LONG))
    job.run()
    again = make_job(name="job-1", training_samples=SHORT, instance_hour_usd=36.0)
    assert "going on from 48 samples" in again.run().output
    assert_same_bits(again, short)


def test_under_cosine_another_end_is_refused_in_a_line_that_says_what_to_do(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(training_samples=SHORT, learning_rate_schedule="cosine")
    job.run()
    for length in (LONG, 40):
        failure = refusal(make_job(name="job-2", training_samples=length, learning_rate_schedule="cosine"))
        assert failure.startswith(f"training_samples {length}: ")
        assert "the cosine schedule takes the learning rate to that end" in failure
        assert "ask for 48 or begin a new training with another TrainingRun" in failure
    same_end = make_job(name="job-3", training_samples=SHORT - 1, learning_rate_schedule="cosine")
    assert "going on from 48 samples" in same_end.run().output, "47 samples are rounded up to the same 48"


def test_a_training_is_not_made_shorter_than_what_it_has_seen(make_job: MakeJob, long: Job) -> None:
    failure = refusal(after(long, make_job(name="job-2", training_samples=SHORT)))
    assert failure.startswith("training_samples 48: ")
    assert "ask for 96 or more or begin a new training with another TrainingRun" in failure


def test_another_training_says_which_setting_makes_it_another_and_what_lies_on_the_volume(
    make_job: MakeJob, short: Job
) -> None:
    job = after(short, make_job(name="job-2", training_samples=16, learning_rate=2e-3))
    next(job.base.glob("checkpoints/*/finished.json")).unlink()
    output = job.run().output
    assert "begins at sample 0" in output
    assert "unfinished at 48 samples, is another training: " in output
    assert "learning_rate was 0.001 and is 0.002" in output
    assert "going on from" not in output


def test_a_finished_training_watched_otherwise_is_not_paid_twice(make_job: MakeJob, short: Job) -> None:
    changes = {"validate_every_samples": 16, "keep_checkpoints": 1, "save_every_samples": 8}
    job = after(short, make_job(name="job-2", training_samples=SHORT, instance_hour_usd=36.0, **changes))
    output = job.run().output
    assert "going on from 48 samples" in output
    assert "new: validate_every_samples, save_every_samples, keep_checkpoints; the weights stay" in output
    assert_same_bits(job, short)


def test_trials_that_share_a_volume_are_each_trained_by_themselves(make_job: MakeJob, short: Job) -> None:
    job = after(short, make_job(name="trial-2", training_samples=16))
    path = job.base / "input" / "config" / "hyperparameters.json"
    texts = json.loads(path.read_text()) | {"_tuning_objective_metric": "validation_loss"}
    path.write_text(json.dumps(texts))
    output = job.run().output
    assert "going on from" not in output
    assert job.lineage()["seen_samples"] == 16
