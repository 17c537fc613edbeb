"""Whole trainings: the same model on any number of ranks, wherever they were interrupted."""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from params.layout import PROGRESS_PREFIX, TRAINING_METRICS, metric_regex
from steps.model.families import load_pipeline
from tests.steps.training.conftest import MakeJob
from tests.steps.training.jobs import SETTINGS, Job
from tests.steps.training.tiny_model import write_latents

LOSSES = ("seen_samples", "training_loss", "validation_loss", "learning_rate", "gradient_norm")
SLOW: dict[str, Any] = {"TEST_HOOK": "slow_steps", "TEST_STEP_S": "0.1"}


def curve(job: Job) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    return [{key: entry[key] for key in LOSSES if key in entry} for entry in job.log()]


def assert_same_bits(job: Job, other: Job) -> None:
    expected, found = other.unet(), job.unet()
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def assert_close(job: Job, other: Job, relative: float) -> None:
    expected, found = other.unet(), job.unet()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=relative, atol=relative, err_msg=name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> tuple[Job, str]:
    job = Job(tmp_path_factory.mktemp("unbroken"), {"instance_hour_usd": 36.0}).write(pretrained, latents)
    return job, job.run().output


def test_the_log_lines_are_found_by_the_metric_definitions(unbroken: tuple[Job, str]) -> None:
    job, output = unbroken
    for name in TRAINING_METRICS:
        assert re.search(metric_regex(name), output, re.MULTILINE), name
    losses = [float(text) for text in re.findall(metric_regex("validation_loss"), output)]
    assert losses[-1] == pytest.approx(curve(job)[-1]["validation_loss"], rel=1e-5)
    entries = job.log()
    assert [entry["seen_samples"] for entry in entries if "training_loss" in entry] == [16, 24, 32, 48, 64, 72, 80, 96]
    assert [entry["seen_samples"] for entry in entries if "validation_loss" in entry] == [48, 96]
    timed = [entry for entry in entries if "compute_s" in entry]
    assert all(entry["images_per_s"] == pytest.approx(8 * entry["iterations_per_s"]) for entry in timed)
    assert timed[-1]["remaining_s"] == timed[-1]["remaining_usd"] == 0
    assert 0 < timed[0]["cost_usd"] < timed[-1]["cost_usd"]
    # $36 an hour are a cent a second.
    assert timed[0]["remaining_usd"] == pytest.approx(timed[0]["remaining_s"] / 100)
    assert entries[-1]["validation_loss"] < entries[-8]["training_loss"]


def test_progress_counts_samples(unbroken: tuple[Job, str]) -> None:
    lines = [
        line.removeprefix(PROGRESS_PREFIX) for line in unbroken[1].splitlines() if line.startswith(PROGRESS_PREFIX)
    ]
    last = json.loads(lines[-1])
    assert (last["step"], last["done"], last["total"], last["unit"]) == ("train", 96, 96, "samples")
    assert last["iterations_per_s"] > 0


def test_the_model_is_a_pipeline_with_its_lineage(unbroken: tuple[Job, str]) -> None:
    job, _ = unbroken
    pipeline = load_pipeline(job.model_dir, torch.float32)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    lineage = job.lineage()
    assert lineage["seen_samples"] == 96
    assert lineage["job_name"] == "job-1"
    assert lineage["settings"]["learning_rate"] == 1e-3
    assert lineage["validation_loss"] == curve(job)[-1]["validation_loss"]
    assert (lineage["world_size"], lineage["skipped_steps"], lineage["lost_samples"]) == (1, 0, 0)
    assert lineage["images_per_s"] > 0


def test_checkpoints_are_kept_apart_from_the_model(unbroken: tuple[Job, str]) -> None:
    job, _ = unbroken
    assert [path.name for path in job.checkpoints] == ["samples-000000000072", "samples-000000000096"]
    assert not list(job.model_dir.rglob("*optimizer*"))
    assert not [path for path in job.base.rglob("*") if path.suffix in (".pt", ".bin", ".pkl", ".partial")]


@pytest.mark.parametrize(("ranks", "micro_batch_size"), [(2, 4), (2, 1), (1, 8)])
def test_any_number_of_ranks_trains_the_same_model(
    make_job: MakeJob, ranks: int, micro_batch_size: int, in_float64: Job
) -> None:
    job = make_job(precision="float64", snr_gamma=5.0, noise_offset=0.1, micro_batch_size=micro_batch_size)
    job.run(ranks)
    assert_close(job, in_float64, 1e-9)
    for found, expected in zip(curve(job), curve(in_float64), strict=True):
        assert found == pytest.approx(expected, rel=1e-9)
    assert job.lineage()["world_size"] == ranks


@pytest.fixture(scope="module")
def in_float64(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> Job:
    settings = {"precision": "float64", "snr_gamma": 5.0, "noise_offset": 0.1, "micro_batch_size": 2}
    job = Job(tmp_path_factory.mktemp("float64"), dict(settings)).write(pretrained, latents)
    job.run()
    return job


def test_after_sigkill_it_goes_on_to_the_same_bits(make_job: MakeJob, unbroken: tuple[Job, str]) -> None:
    job = make_job()
    running = job.start(**SLOW)
    running.until("training_loss=", timeout_s=60)
    running.until("checkpoint ", timeout_s=60)
    running.send(signal.SIGKILL)
    assert running.wait() == [-signal.SIGKILL]
    assert not job.model_dir.exists()
    job.name = "job-2"
    output = job.run().output
    assert re.search(r"going on from (24|48) samples", output)
    assert_same_bits(job, unbroken[0])
    assert curve(job) == curve(unbroken[0])


def test_muon_trains_the_same_model_on_two_ranks(make_job: MakeJob) -> None:
    jobs = [make_job(f"{ranks}-ranks", optimizer="muon", precision="float64") for ranks in (1, 2)]
    for ranks, job in enumerate(jobs, 1):
        job.run(ranks)
    assert_close(jobs[1], jobs[0], 1e-9)


@pytest.fixture(scope="module", params=["adamw", "muon"])
def two_ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path
) -> Job:
    settings = {"ema_precision": "bfloat16", "optimizer": request.param}
    job = Job(tmp_path_factory.mktemp("two-ranks"), settings).write(pretrained, latents)
    job.run(2)
    return job


@pytest.mark.parametrize("divided", [False, True])
def test_two_ranks_killed_go_on_to_the_same_bits_whoever_keeps_the_optimizer(
    make_job: MakeJob, two_ranks: Job, divided: bool
) -> None:
    job = make_job(**two_ranks.settings, shard_optimizer=divided)
    running = job.start(2, **SLOW)
    running.until("checkpoint ")
    running.send(signal.SIGKILL)
    running.wait()
    other = make_job(**two_ranks.settings, shard_optimizer=not divided)
    assert "going on from" in other.run(2).output
    assert_same_bits(other, two_ranks)
    assert curve(other) == curve(two_ranks)


def test_sigterm_on_one_rank_saves_at_once_and_any_number_of_ranks_goes_on(make_job: MakeJob, in_float64: Job) -> None:
    settings = dict(in_float64.settings) | {"save_every_samples": 10_000, "micro_batch_size": 4}
    job = make_job(**settings)
    running = job.start(2, **SLOW)
    running.until("training_loss=")
    running.send(signal.SIGTERM, rank=1)
    assert running.wait(30) == [128 + signal.SIGTERM] * 2, running.output
    stopped = set(re.findall(r"^stopped after (\d+) samples", running.output, re.MULTILINE)).pop()
    assert [path.name for path in job.checkpoints] == [f"samples-{int(stopped):012d}"]
    assert not job.model_dir.exists()
    assert not (job.base / "output" / "failure").exists()
    assert f"going on from {stopped} samples" in job.run(1).output
    assert_close(job, in_float64, 1e-9)


def test_a_spent_budget_stops_all_ranks_with_a_checkpoint_and_a_larger_one_goes_on(
    make_job: MakeJob, in_float64: Job
) -> None:
    # Ten dollars a second: training's part is gone after some steps, and the rest of the run's cannot be touched.
    money: dict[str, Any] = {"instance_hour_usd": 36_000, "budget_usd": 6, "other_steps_usd": 1}
    settings = dict(in_float64.settings) | {"save_every_samples": 10_000, "micro_batch_size": 4}
    job = make_job(**settings | money)
    running = job.start(2, **SLOW)
    assert running.wait() == [1, 1], running.output
    said = re.search(
        r"^rank 0: the budget is spent: training took \$([\d.]+) of \$5.00 .*$", running.output, re.MULTILINE
    )
    assert said is not None, running.output
    assert float(said[1]) >= 5
    stopped = int(set(re.findall(r"^stopped after (\d+) samples", running.output, re.MULTILINE)).pop())
    assert [path.name for path in job.checkpoints] == [f"samples-{stopped:012d}"]
    assert not job.model_dir.exists()
    spent_usd = json.loads(next(job.base.glob("checkpoints/*/spent.json")).read_text())["usd"]
    again = make_job(**settings | money)
    assert again.start().wait() == [1]
    assert "raise BudgetUsd" in again.failure
    richer = make_job(**settings | money | {"budget_usd": 1e6})
    output = richer.run().output
    assert f"going on from {stopped} samples" in output
    assert_close(richer, in_float64, 1e-9)
    assert richer.log()[-1 - bool("validation_loss" in richer.log()[-1])]["cost_usd"] > spent_usd


def test_a_checkpoint_that_is_written_slowly_holds_the_weights_of_its_own_samples(
    make_job: MakeJob, unbroken: tuple[Job, str]
) -> None:
    job = make_job()
    job.run(TEST_HOOK="slow_disk")
    for path, expected in zip(job.checkpoints, unbroken[0].checkpoints, strict=True):
        for file in ("weights", "average", "optimizer"):
            name = f"{file}.safetensors"
            assert (path / name).read_bytes() == (expected / name).read_bytes(), (path.name, name)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(make_job: MakeJob, unbroken: tuple[Job, str]) -> None:
    job = make_job()
    shutil.copytree(unbroken[0].base / "checkpoints", job.base / "checkpoints")
    next((job.base / "checkpoints").glob("*/finished.json")).unlink()
    with (job.checkpoints[-1] / "average.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\xff" * 4)
    output = job.run().output
    assert "samples-000000000096 is damaged (average.safetensors does not match its sha256)" in output
    assert "going on from 72 samples" in output
    assert_same_bits(job, unbroken[0])
    assert curve(job) == curve(unbroken[0])


def test_a_finished_job_that_is_restarted_exports_again(make_job: MakeJob, unbroken: tuple[Job, str]) -> None:
    job = make_job()
    shutil.copytree(unbroken[0].base / "checkpoints", job.base / "checkpoints")
    output = job.run().output
    assert "going on from 96 samples" in output
    assert "training_loss=" in output, "its metrics are said again"
    assert_same_bits(job, unbroken[0])


def test_a_job_killed_while_it_exports_is_followed_by_one_that_trains_nothing_again(
    make_job: MakeJob, unbroken: tuple[Job, str]
) -> None:
    job = make_job()
    assert job.start(TEST_HOOK="killed_in_export").wait() == [-signal.SIGKILL]
    job.name = "job-2"
    output = job.run().output
    assert "going on from 96 samples" in output
    assert "begins afresh" not in output
    assert_same_bits(job, unbroken[0])


def test_another_job_of_the_same_settings_trains_again(make_job: MakeJob, unbroken: tuple[Job, str]) -> None:
    job = make_job(name="job-9", instance_hour_usd=36.0)
    shutil.copytree(unbroken[0].base / "checkpoints", job.base / "checkpoints")
    output = job.run().output
    assert "finished by job-1; job-9 begins afresh" in output
    assert "going on from" not in output
    assert_same_bits(job, unbroken[0])


def test_a_finished_training_under_another_budget_is_not_paid_twice(
    make_job: MakeJob, unbroken: tuple[Job, str]
) -> None:
    job = make_job(name="job-9", budget_usd=100, instance_hour_usd=36.0)
    shutil.copytree(unbroken[0].base / "checkpoints", job.base / "checkpoints")
    output = job.run().output
    assert "finished by job-1; new: budget_usd; the weights stay" in output
    assert "going on from 96 samples" in output
    assert_same_bits(job, unbroken[0])


def test_cached_embeddings_train_too(tmp_path: Path, pretrained: Path) -> None:
    latents = write_latents(tmp_path / "latents", pretrained, embeddings=True)
    job = Job(tmp_path / "job", {"training_samples": 16}).write(pretrained, latents)
    job.run()
    assert np.isfinite(curve(job)[-1]["validation_loss"])


def test_bfloat16_trains_too(make_job: MakeJob, unbroken: tuple[Job, str]) -> None:
    job = make_job(precision="bfloat16")
    job.run()
    assert curve(job)[-1]["validation_loss"] == pytest.approx(curve(unbroken[0])[-1]["validation_loss"], rel=0.05)


def test_a_sample_that_is_not_finite_is_skipped_up_to_the_limit(tmp_path: Path, pretrained: Path) -> None:
    latents = write_latents(tmp_path / "latents", pretrained, broken_row=17)
    job = Job(tmp_path / "job").write(pretrained, latents)
    output = job.run().output
    assert "step skipped: gradient not finite at samples" in output
    assert 1 <= job.lineage()["skipped_steps"] <= 2
    assert all(np.isfinite(tensor).all() for tensor in job.unet().values())
    strict = Job(tmp_path / "strict", {"max_skipped_steps": 0}).write(pretrained, latents)
    assert strict.start().wait() == [1]
    assert "1 steps had a gradient that is not finite (max_skipped_steps 0)" in strict.failure


def test_a_loss_that_jumps_is_said_with_its_samples_and_training_goes_on(tmp_path: Path, pretrained: Path) -> None:
    latents = write_latents(tmp_path / "latents", pretrained, broken_row=17, broken_value=300.0)
    job = Job(tmp_path / "job", {"training_samples": 128}).write(pretrained, latents)
    output = job.run(TEST_HOOK="early_spikes").output
    said = re.findall(r"^loss spike: (\S+) at samples (\d+) to (\d+)$", output, re.MULTILINE)
    # Two epochs of 64: the row comes twice, each time among eight; the first may come before there is a measure.
    assert 1 <= len(said) <= 2, output
    for loss, first, last in said:
        assert float(loss) > 10
        assert int(last) - int(first) == 8
    assert job.lineage()["seen_samples"] == 128


def test_a_rank_whose_weights_stray_is_named_and_nothing_of_it_is_saved(make_job: MakeJob) -> None:
    job = make_job(save_every_samples=32)
    running = job.start(2, TEST_HOOK="flipped_bit")
    assert running.wait()[1] == 1
    assert "after 64 samples the weights of rank 1 differ from the others'" in running.output
    assert [path.name for path in job.checkpoints] == ["samples-000000000032"]


def test_a_hung_rank_ends_the_job_and_is_named(make_job: MakeJob) -> None:
    job = make_job(collective_timeout_s=5)
    running = job.start(2, **SLOW)
    running.until("training_loss=")
    running.send(signal.SIGSTOP, rank=1)
    running.processes[0].join(30)
    running.send(signal.SIGKILL, rank=1)
    running.wait()
    assert running.processes[0].exitcode == 1
    assert re.search(r"rank 0: no progress for 5 s .*no sign of life from rank 1 on \S+", running.output)


def test_when_a_rank_dies_the_others_end_and_say_so(make_job: MakeJob) -> None:
    running = make_job().start(2, **SLOW)
    running.until("training_loss=")
    running.send(signal.SIGKILL, rank=1)
    assert running.wait(30) == [1, -signal.SIGKILL]
    assert "rank 0: rank 0 lost the others" in running.output


def test_settings_that_do_not_fit_are_one_clear_line(make_job: MakeJob) -> None:
    job = make_job(micro_batch_size=3)
    assert job.start().wait() == [1]
    assert job.failure.startswith("global_batch_size 8 is no multiple of micro_batch_size 3 x 1 ranks")
    assert SETTINGS["global_batch_size"] == 8
