"""Where a job computes: a host that has GPUs never goes on on its CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from steps import device as module
from steps.container import Container
from steps.device import choose_device, device_names, gpu_count, gpus_to_lend
from steps.errors import StepError
from tests.steps.training.jobs import ROOT

OLD_DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021\n"
GPU_TYPES = [
    "ml.p4d.24xlarge",
    "ml.g5.xlarge",
    "ml.g4dn.xlarge",
    "ml.g6e.xlarge",
    "ml.p5.48xlarge",
    "ml.p6-b200.48xlarge",
]
CPU_TYPES = ["ml.c5.large", "ml.m5.large", "ml.trn1.2xlarge", "ml.inf2.xlarge", ""]


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without device files and without a driver."""
    monkeypatch.setattr(module, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(module, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    return tmp_path


def training(folder: Path, instance_type: str) -> Container:
    write(folder / "input" / "config" / "resourceconfig.json", {"current_instance_type": instance_type})
    return Container({"SAGEMAKER_BASE_DIR": str(folder)})


def processing(folder: Path, instance_type: str) -> Container:
    write(folder / "config" / "resourceconfig.json", {"hosts": ["algo-1"], "current_host": "algo-1"})
    hosts = {"ClusterConfig": {"InstanceType": instance_type, "InstanceCount": 1}}
    write(folder / "config" / "processingjobconfig.json", {"ProcessingResources": hosts})
    return Container({"SAGEMAKER_BASE_DIR": str(folder)})


def endpoint(folder: Path, instance_type: str) -> Container:
    return Container({"SAGEMAKER_BASE_DIR": str(folder), "SD_PIPELINE_INSTANCE_TYPE": instance_type})


def write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("kind", [training, processing, endpoint])
@pytest.mark.parametrize("instance_type", GPU_TYPES)
def test_a_gpu_type_without_a_usable_gpu_is_one_line_with_all_that_one_must_know(
    tmp_path: Path, kind: Any, instance_type: str
) -> None:
    container = kind(tmp_path, instance_type)
    for ask in (choose_device, device_names, gpu_count, gpus_to_lend):
        with pytest.raises(StepError) as error:
            ask(container)  # type: ignore[operator]
        text = str(error.value)
        assert text.startswith(f"{instance_type}: it has GPUs, and torch cannot use them: driver none")
        assert f"CUDA {torch.version.cuda or 'none'}" in text and "\n" not in text
        assert "Torch not compiled with CUDA enabled" in text or "NVIDIA" in text


@pytest.mark.parametrize("kind", [training, processing, endpoint])
@pytest.mark.parametrize("instance_type", CPU_TYPES)
def test_a_cpu_type_computes_on_its_cpu(tmp_path: Path, kind: Any, instance_type: str) -> None:
    container = kind(tmp_path, instance_type)
    assert choose_device(container) == torch.device("cpu")
    assert device_names(container) == ["cpu"]
    assert gpu_count(container) is gpus_to_lend(container) is None


def test_the_type_of_a_host_in_instance_groups_is_its_groups(tmp_path: Path) -> None:
    groups = [
        {"instance_group_name": "trainers", "instance_type": "ml.p4d.24xlarge", "hosts": ["algo-1"]},
        {"instance_group_name": "encoders", "instance_type": "ml.g5.xlarge", "hosts": ["algo-2"]},
    ]
    about = {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"], "instance_groups": groups}
    write(tmp_path / "input" / "config" / "resourceconfig.json", about)
    assert Container({"SAGEMAKER_BASE_DIR": str(tmp_path)}).instance_type == "ml.g5.xlarge"


def test_a_device_file_says_that_there_is_a_gpu_whatever_the_type(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "dev" / "nvidia0").touch()
    for container in (training(bare, "ml.c5.large"), Container({"SAGEMAKER_BASE_DIR": str(bare / "none")})):
        with pytest.raises(StepError, match="nvidia0: it has GPUs, and torch cannot use them"):
            choose_device(container)
    # Who hides the GPUs asks for the CPU; a GPU type is paid for all the same.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device(training(bare, "ml.c5.large")) == torch.device("cpu")
    with pytest.raises(StepError, match="it has GPUs"):
        choose_device(training(bare, "ml.g5.xlarge"))


def test_an_old_driver_is_named_with_the_one_that_the_cuda_needs(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "version").write_text(OLD_DRIVER)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", lambda: _raise("The NVIDIA driver on your system is too old (found 11040)"))
    with pytest.raises(StepError) as error:
        choose_device(endpoint(bare, "ml.g5.2xlarge"))
    text = str(error.value)
    assert "driver 470.57.02" in text and "too old (found 11040)" in text
    assert "CUDA 13.0 needs driver 580 or newer" in text and "endpoint.inference_ami_version" in text


def test_a_gpu_that_this_torch_has_no_kernels_for_is_found_before_the_work(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A V100 under CUDA 13: it is there, and every kernel fails."""
    (bare / "version").write_text(OLD_DRIVER.replace("470.57.02", "580.65.06"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: _raise("no kernel image is available for execution"))
    with pytest.raises(StepError, match=r"ml\.p3\.2xlarge: .*driver 580.65.06.*no kernel image.*choose an"):
        choose_device(training(bare, "ml.p3.2xlarge"))


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("train", []),
        ("evaluate", []),
        ("recaption", ["--shards-uri", "s3://b/s", "--captions-uri", "s3://b/c"]),
        ("encode", ["--shards-uri", "s3://b/s", "--latents-uri", "s3://b/l", "--reference-uri", "s3://b/r"]),
    ],
)
def test_each_program_ends_in_seconds_on_a_gpu_host_without_a_gpu(
    tmp_path: Path, program: str, flags: list[str]
) -> None:
    base = tmp_path / "job"
    (processing if program != "train" else training)(base, "ml.g5.12xlarge")
    if program == "train":
        about = {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": "ml.g5.12xlarge"}
        write(base / "input" / "config" / "resourceconfig.json", about)
        write(base / "input" / "config" / "hyperparameters.json", {})
    (base / "output").mkdir()
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "PYTHONPATH": str(ROOT)}
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "steps", program, *flags], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert (base / "output" / "failure").read_text().startswith("ml.g5.12xlarge: it has GPUs, and torch cannot use")
    assert time.monotonic() - began_s < 60


def _raise(text: str) -> None:
    raise RuntimeError(text)
