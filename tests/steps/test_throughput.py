"""`python -m steps throughput`: a line for each micro-batch size, and the best of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from params.layout import metric_regex
from params.programs import TrainArguments
from steps import throughput
from steps.container import Container
from steps.errors import StepError
from steps.training import sweep as sweep_module
from steps.training.optimizer_step import OptimizerStep, OutOfMemoryError
from steps.training.ranks import World
from steps.training.sweep import Sweep, best_of
from tests.steps.training.jobs import Job
from tests.steps.training.tiny_model import write_latents, write_pretrained

METRICS = ("iterations_per_s", "images_per_s", "images_per_s_per_gpu", "mfu", "data_s", "compute_s", "communication_s")
FLAGS = ["--precision", "float32", "--throughput-s", "0.01"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pretrained(tmp_path_factory.mktemp("channels") / "pretrained")


@pytest.fixture
def container(tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    (tmp_path / "input" / "data").mkdir(parents=True)
    (tmp_path / "input" / "data" / "pretrained").symlink_to(pretrained)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield Container()
    torch.set_num_threads(threads)


def result_of(container: Container) -> dict[str, object]:
    value: dict[str, object] = json.loads((container.output_data_dir / "throughput.json").read_text())
    return value


def test_without_latents_random_ones_stand_in(container: Container, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--throughput-micro-batch-sizes", "4,2", "--random-latents-px", "16"]
    assert throughput.main([*FLAGS, *sizes]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^micro_batch_size=(\d+) batch_size=(\d+)", said, re.MULTILINE) == [("2", "2"), ("4", "4")]
    for name in METRICS:
        assert len(re.findall(metric_regex(name), said, re.MULTILINE)) >= 2, name
    result = result_of(container)
    assert result["best"] in result["sizes"]  # type: ignore[operator]
    assert f"best micro_batch_size={result['best']['micro_batch_size']}" in said  # type: ignore[index]


def test_a_lora_is_measured_without_trained_weights(container: Container) -> None:
    sizes = ["--throughput-micro-batch-sizes", "2", "--random-latents-px", "16"]
    flops = []
    for lora in ([], ["--lora-rank", "2"]):
        assert throughput.main([*FLAGS, *sizes, *lora]) == 0
        best: Any = result_of(container)["best"]
        flops.append(best["tflops_per_s_per_gpu"] / best["images_per_s"])
    # Frozen weights have no gradients.
    assert flops[1] < 0.9 * flops[0]


def test_a_size_that_needs_too_much_memory_ends_the_sweep(
    container: Container, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add = OptimizerStep.add_gradients

    def hungry(self: OptimizerStep, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 2:
            raise OutOfMemoryError("out of memory")
        return add(self, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(OptimizerStep, "add_gradients", hungry)
    sizes = ["--throughput-micro-batch-sizes", "1,2,4,8", "--random-latents-px", "16"]
    assert throughput.main([*FLAGS, *sizes]) == 0
    said = capsys.readouterr().out
    assert "micro_batch_size=4: out of memory" in said
    assert "micro_batch_size=8" not in said
    assert [entry["micro_batch_size"] for entry in result_of(container)["sizes"]] == [1, 2]  # type: ignore[attr-defined]


def test_a_training_job_with_the_flag_measures_over_its_ranks_and_leaves_no_model(
    tmp_path: Path, pretrained: Path
) -> None:
    latents = write_latents(tmp_path / "latents", pretrained)
    settings = {"throughput_micro_batch_sizes": "2,4", "throughput_s": 0.01}
    job = Job(tmp_path / "job", dict(settings)).write(pretrained, latents)
    output = job.run(2).output
    assert re.findall(r"^micro_batch_size=(\d+) batch_size=(\d+)", output, re.MULTILINE) == [("2", "4"), ("4", "8")]
    assert json.loads((job.base / "output" / "data" / "throughput.json").read_text())["ranks"] == 2
    assert not job.model_dir.exists()
    assert not job.checkpoints


def test_a_smaller_micro_batch_that_is_as_fast_wins() -> None:
    entries = [
        {"micro_batch_size": size, "images_per_s": speed} for size, speed in ((8, 50.0), (16, 99.5), (32, 100.0))
    ]
    assert best_of(entries)["micro_batch_size"] == 16


def test_where_nothing_fits_it_says_what_to_do(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_fits(self: Sweep, size: int) -> None:
        raise OutOfMemoryError("out of memory")

    monkeypatch.setattr(sweep_module.Sweep, "_measure", none_fits)
    world = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    arguments = TrainArguments(throughput_micro_batch_sizes=(2, 4))
    with pytest.raises(StepError, match=r"out of memory at the smallest .* gradient_checkpointing"):
        Sweep(arguments, container, world, lambda phase, seen_samples: None).run()
