"""`sd-pipeline throughput` measures Train's settings in a process of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from params.arguments import from_texts
from params.programs import ThroughputArguments
from pipeline_definition.cli import app
from pipeline_definition.commands import programs

RESULT = {"ranks": 1, "sizes": [], "best": {"micro_batch_size": 32}}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run; each leaves a result where the program does."""
    found: list[list[str]] = []

    def run(command: list[str], env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        base = Path(env["SAGEMAKER_BASE_DIR"])
        assert (base / "input" / "data" / "pretrained" / "unet" / "config.json").is_file()
        (base / "output" / "data").mkdir(parents=True)
        (base / "output" / "data" / "throughput.json").write_text(json.dumps(RESULT))
        found.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(programs.subprocess, "run", run)
    return found


def test_it_measures_the_parameter_sets_training(commands: list[list[str]]) -> None:
    done = CliRunner().invoke(app, ["throughput", "--micro-batch-sizes", "16,32", "--seconds", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == RESULT
    (command,) = commands
    assert command[1:5] == ["-P", "-m", "steps", "throughput"]
    flags = {flag[2:].replace("-", "_"): value for flag, value in zip(command[5::2], command[6::2], strict=True)}
    asked = from_texts(ThroughputArguments, flags, "command line")
    assert asked.throughput_micro_batch_sizes == (16, 32)
    assert (asked.throughput_s, asked.random_latents_px, asked.prediction_type) == (2.0, 64, "v_prediction")


def test_a_lora_is_measured_as_a_lora(commands: list[list[str]], tmp_path: Path) -> None:
    lora = tmp_path / "lora.yaml"
    local = Path("params/local.yaml").read_text(encoding="utf-8")
    lora.write_text(local.replace("train:\n", "train:\n  lora_rank: 8\n  initial_weights: pretrained\n"))
    done = CliRunner().invoke(app, ["throughput", "--params", str(lora), "--json"])
    assert done.exit_code == 0, done.output
    flags = {
        flag[2:].replace("-", "_"): value for flag, value in zip(commands[0][5::2], commands[0][6::2], strict=True)
    }
    assert from_texts(ThroughputArguments, flags, "command line").lora_rank == 8


def test_a_set_for_aws_needs_a_folder(commands: list[list[str]]) -> None:
    done = CliRunner().invoke(app, ["throughput", "--params", "params/sd2_base.yaml"])
    assert done.exit_code == 2
    assert "--pretrained: name a folder with the denoiser's config.json" in done.output
    assert not commands
