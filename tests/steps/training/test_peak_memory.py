"""The estimate of peak memory against a real process that trains, and what it must not depend on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from params.memory import ModelFigures, denoiser_shape
from steps import memory
from steps.model.families.unet import UNet
from steps.model.pretrained import part_config
from steps.training.peak_memory import FakeNetwork
from tests.steps.training.tiny_model import write_pretrained

# Beside its tensors a process holds what its libraries work with: 1.08 to 1.16 were measured (docs/benchmarks.md).
LOWEST_RATIO, HIGHEST_RATIO = 0.95, 1.25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pretrained(tmp_path_factory.mktemp("pretrained"))


@pytest.mark.parametrize(("family", "batch_size"), [("unet", "16"), ("sd3", "8")])
def test_the_estimate_is_what_a_real_process_takes_at_its_peak(family: str, batch_size: str) -> None:
    command = [sys.executable, "-m", "benchmarks.train", "--memory", "--device", "cpu", "--json", "--family", family]
    sizes = ["--batch-sizes", batch_size, "--pictures", batch_size]
    done = subprocess.run(
        [*command, *sizes],
        capture_output=True,
        text=True,
        check=True,
        timeout=290,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)["memory"]
    assert [row["gradient_checkpointing"] for row in rows] == [False, True]
    for row in rows:
        assert LOWEST_RATIO < row["ratio"] < HIGHEST_RATIO, row


def test_a_unet_on_a_gpu_normalises_in_float32_and_leaves_the_norms_as_they_were(folder: Path) -> None:
    import torch.nn.functional as F  # noqa: N812

    norms, config = (F.group_norm, F.layer_norm), part_config(folder, "unet")
    shape = (4, 8, 8)
    peaks = {
        on_gpu: FakeNetwork(UNet(), config, "bfloat16", False, on_gpu).pass_bytes(4, shape, 8)
        for on_gpu in (True, False)
    }
    assert peaks[True] > peaks[False]
    assert norms == (F.group_norm, F.layer_norm)


def test_a_pass_can_be_repeated_and_grows_with_the_batch(folder: Path) -> None:
    for keeps in (True, False):
        unet = FakeNetwork(UNet(), part_config(folder, "unet"), "float32", False, keeps_gradients=keeps)
        peaks = [unet.pass_bytes(size, (4, 8, 8), 8) for size in (4, 8, 4)]
        assert peaks[0] == peaks[2] < peaks[1]


def test_the_figures_of_a_model_are_written_beside_those_of_others(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "memory.yaml"
    other = {
        "name": "another",
        "denoiser": {"layers_per_block": 9},
        "denoiser_parameters": 1,
        "text_encoder_parameters": 1,
        "vae_parameters": 1,
        "sample": {name: {} for name in ("denoiser_forward", "denoiser_train", "vae_encode", "vae_decode")}
        | dict.fromkeys(("text_encoders", "latent_channels", "token_ids", "caption_values"), 1),
    }
    file.write_text("# How.\n" + yaml.safe_dump([other | {"training": [], "encoding": []}]))
    flags = ["--resolutions-px", "64", "--micro-batch-sizes", "1,2", "--precisions", "float32"]
    flags += ["--pretrained-dir", str(folder), "--figures-file", str(file), "--name", "tiny"]
    for _ in range(2):
        assert memory.main(flags) == 0
    models = [ModelFigures.model_validate(one) for one in yaml.safe_load(file.read_text())]
    assert file.read_text().startswith("# How.\n")
    assert [model.name for model in models] == ["another", "tiny"]
    assert models[1].denoiser == denoiser_shape(part_config(folder, "unet"))
    assert [one.gradient_checkpointing for one in models[1].training] == [False, True]
    assert models[1].training[0].bytes_of[2] > models[1].training[0].bytes_of[1] > 0
