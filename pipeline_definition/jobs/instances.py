"""Instance types: which SageMaker knows for which kind of job, and which GPUs a host has.

Reads instances.yaml and botocore's service model; writes nothing, needs no network.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from params.instances import has_gpus
from pipeline_definition.jobs.request_shapes import choices

JobKind = Literal["training", "processing", "endpoint"]

SHAPES: dict[JobKind, str] = {
    "training": "TrainingInstanceType",
    "processing": "ProcessingInstanceType",
    "endpoint": "ProductionVariantInstanceType",
}
# CUDA 13, with which the images' torch is built, needs Turing or newer:
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ (13.0: Maxwell, Pascal and Volta are gone)
CUDA_COMPUTE_CAPABILITY = 7.5
# bfloat16 in the tensor cores came with Ampere: https://docs.nvidia.com/cuda/ampere-tuning-guide/
BFLOAT16_COMPUTE_CAPABILITY = 8.0
# Types whose GPUs are of no use here, and why.
UNUSABLE = {"ml.p6e-gb200.36xlarge": "its CPUs are Arm, and the images are for x86-64"}


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory_mib: int
    compute_capability: float


@dataclass(frozen=True)
class Instance:
    """The GPUs of one instance type."""

    name: str
    gpus: int
    """GPUs of a host; 0: none."""
    gpu: Gpu | None
    unusable: str = ""
    """Why the images cannot run there; nothing: they can."""

    @property
    def ranks(self) -> int:
        """Training processes of a host: one for each GPU, or one for a host without."""
        return max(self.gpus, 1)


def instance(name: str) -> Instance:
    """Return an instance type's GPUs; a type that is not in the table has none."""
    return _gpu_instances().get(name) or Instance(name, 0, None, UNUSABLE.get(name, ""))


def known_host_images() -> tuple[str, ...]:
    """Return the images that SageMaker takes for an endpoint's host."""
    return choices("ProductionVariantInferenceAmiVersion")


def known_types(kind: JobKind) -> tuple[str, ...]:
    """Return the instance types that SageMaker takes for a kind of job."""
    return choices(SHAPES[kind])


def every_type() -> tuple[str, ...]:
    """Return the instance types that SageMaker takes for any kind of job."""
    return tuple(sorted({name for kind in SHAPES for name in known_types(kind)}))


def gpu_types() -> tuple[str, ...]:
    """Return those of them that have NVIDIA GPUs."""
    return tuple(name for name in every_type() if has_gpus(name))


def nearest_of(name: str, types: Sequence[str]) -> str:
    """Return the type of several whose name is nearest."""
    return difflib.get_close_matches(name, types, n=1, cutoff=0.0)[0]


@functools.cache
def _gpu_instances() -> dict[str, Instance]:
    table = yaml.safe_load(Path(__file__).with_name("instances.yaml").read_text(encoding="utf-8"))
    instances: dict[str, Instance] = {}
    for gpu_name, about in table.items():
        gpu = Gpu(gpu_name, about["memory_mib"], about["compute_capability"])
        instances |= {name: Instance(name, count, gpu) for name, count in about["instances"].items()}
    return instances
