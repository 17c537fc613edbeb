"""A LoRA: only its matrices learn, exactly as all weights do without one, and it draws wherever it is taken."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from params.layout import ADAPTER_FILE
from params.programs import TrainArguments
from steps.__main__ import main
from steps.errors import StepError
from steps.model.adapters import load_judged, merged
from steps.model.families import load_pipeline
from steps.training.lora import add_lora
from tests.steps.training.conftest import MakeJob
from tests.steps.training.jobs import Job
from tests.steps.training.test_session import SLOW, curve
from tests.steps.training.tiny_model import tiny_unet, write_latents

LORA: dict[str, Any] = {
    "initial_weights": "pretrained",
    "prediction_type": "epsilon",
    "lora_rank": 2,
    "lora_alpha": 3,
    "lora_text_encoder": True,
}
EXACT = {**LORA, "precision": "float64"}
ADAPTER = Path("adapters") / "lora" / ADAPTER_FILE


def adapter(job: Job) -> dict[str, Any]:
    weights: dict[str, Any] = load_file(job.model_dir / ADAPTER)
    return weights


def assert_same_bits(job: Job, other: Job) -> None:
    expected, found = adapter(other), adapter(job)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def drawn(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    seed = torch.Generator().manual_seed(0)
    return pipeline("abc", height=8, width=8, num_inference_steps=2, generator=seed, output_type="np").images


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> Job:
    job = Job(tmp_path_factory.mktemp("lora"), dict(LORA)).write(pretrained, latents)
    job.run()
    return job


@pytest.fixture(scope="module")
def in_float64(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, latents: Path) -> Job:
    job = Job(tmp_path_factory.mktemp("lora-exact"), {**EXACT, "micro_batch_size": 8}).write(pretrained, latents)
    job.run()
    return job


def test_checkpoints_hold_the_matrices_alone_and_the_base_stays_as_it_was(unbroken: Job, pretrained: Path) -> None:
    names: set[str] = set()
    for group in ("weights", "average", "optimizer"):
        with safe_open(unbroken.checkpoints[-1] / f"{group}.safetensors", "np") as file:
            names |= set(file.keys())
    assert names and all("lora_A" in name or "lora_B" in name for name in names)
    assert {name.split(".")[0] for name in names} >= {"unet", "text_encoder"}
    before = load_file(pretrained / "unet" / "diffusion_pytorch_model.safetensors")
    after = unbroken.unet()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert any(np.abs(value).max() > 0 for name, value in adapter(unbroken).items() if "lora_B" in name)


@pytest.mark.parametrize(("ranks", "micro_batch_size", "divided"), [(1, 2, False), (2, 4, False), (2, 1, True)])
def test_any_number_of_ranks_trains_the_same_adapter(
    make_job: MakeJob, in_float64: Job, ranks: int, micro_batch_size: int, divided: bool
) -> None:
    job = make_job(**EXACT, micro_batch_size=micro_batch_size, shard_optimizer=divided)
    job.run(ranks)
    expected, found = adapter(in_float64), adapter(job)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_training_goes_on_to_the_same_bits(make_job: MakeJob, unbroken: Job, ranks: int) -> None:
    whole = unbroken
    if ranks == 2:
        whole = make_job("whole", **LORA)
        whole.run(2)
    job = make_job(**LORA, shard_optimizer=ranks == 2)
    running = job.start(ranks, **SLOW)
    running.until("checkpoint ")
    running.send(signal.SIGKILL)
    running.wait()
    assert "going on from" in job.run(ranks).output
    assert_same_bits(job, whole)
    assert curve(job) == curve(whole)


def test_a_longer_training_goes_on_from_a_shorter_one(make_job: MakeJob, unbroken: Job) -> None:
    job = make_job(**LORA, training_samples=48)
    job.run()
    longer = make_job(**LORA)
    assert re.search(r"goes on from .* finished at 48 samples", longer.run().output)
    assert_same_bits(longer, unbroken)


def test_merged_weights_draw_what_the_adapter_beside_them_draws(make_job: MakeJob, unbroken: Job) -> None:
    job = make_job(**LORA, lora_output="merged")
    job.run()
    beside = drawn(load_judged(unbroken.model_dir, torch.float32))
    assert not (job.model_dir / "adapters").exists()
    np.testing.assert_allclose(drawn(load_judged(job.model_dir, torch.float32)), beside, atol=1e-5)
    base = load_pipeline(unbroken.model_dir, torch.float32)
    assert np.abs(drawn(base) - beside).max() > 1e-3
    again = merged(base, "x", job.model_dir / "merged_adapters/lora" / ADAPTER_FILE)
    np.testing.assert_allclose(drawn(again), beside, atol=1e-5)


@pytest.mark.parametrize("check", ["true", "false"])
def test_kohyas_format_draws_the_same_and_says_how_much_each_layer_counts(
    unbroken: Job, tmp_path: Path, check: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kohya.safetensors"
    model, out = str(unbroken.model_dir), str(tmp_path / "out")
    assert main(["export", "--model", model, "--out", out, "--lora-kohya", str(file), "--check", check]) == 0
    assert ("kohya.safetensors draws the model's picture" in capsys.readouterr().out) == (check == "true")
    weights = load_file(file)
    assert {name.split(".")[-1] for name in weights} == {"weight", "alpha"}
    assert {float(value) for name, value in weights.items() if name.endswith(".alpha")} == {2.0}
    assert any(name.startswith("lora_te_text_model_encoder_layers_0_self_attn_q_proj.") for name in weights)
    pictures = [
        drawn(merged(load_pipeline(unbroken.model_dir, torch.float32), "x", adapter))
        for adapter in (file, unbroken.model_dir / ADAPTER)
    ]
    np.testing.assert_allclose(*pictures, atol=1e-5)


def test_a_model_without_a_lora_has_none_to_export(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--lora-kohya", str(tmp_path / "kohya.safetensors"), "--check", "false"]
    assert main(["export", "--model", str(pretrained), "--out", str(tmp_path / "out"), *flags]) == 1
    assert "this model was trained without a LoRA" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_lineage_names_base_rank_and_targets(unbroken: Job) -> None:
    lineage = unbroken.lineage()
    assert lineage["base_model"] == f"unet sha256:{lineage['initial_unet']}"
    assert lineage["lora"] == {
        "name": "lora",
        "output": "separate",
        "rank": 2,
        "alpha": 3.0,
        "targets": ["to_q", "to_k", "to_v", "to_out.0"],
        "text_encoder": True,
    }
    assert json.loads((unbroken.model_dir / "checksums.json").read_text()).keys() >= {ADAPTER.as_posix()}


def test_a_text_encoder_does_not_learn_from_embeddings_that_were_stored(tmp_path: Path, pretrained: Path) -> None:
    latents = write_latents(tmp_path / "latents", pretrained, embeddings=True)
    job = Job(tmp_path / "job", dict(LORA)).write(pretrained, latents)
    assert job.start().wait() == [1]
    assert job.failure.startswith("lora_text_encoder: the latents hold embeddings")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"initial_weights": "scratch"}, "set initial_weights to pretrained or model"),
        ({"lora_rank": 0}, "set lora_rank"),
    ],
)
def test_settings_of_a_lora_that_would_do_nothing_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainArguments.model_validate({**LORA, **changes})


@pytest.mark.parametrize("target", ["to_w", "norm1", "attn1"])
def test_a_target_without_a_lora_is_named(target: str) -> None:
    arguments = TrainArguments.model_validate(LORA)
    with pytest.raises(StepError, match=f"lora_targets: '{target}' ends the name of no linear layer"):
        add_lora(tiny_unet(), arguments, ("to_q", target))


def test_convolutions_learn_too(make_job: MakeJob) -> None:
    job = make_job(**LORA, lora_targets="to_q,conv1", compile=False, training_samples=16)
    job.run()
    assert any("conv1.lora_A" in name for name in adapter(job))
