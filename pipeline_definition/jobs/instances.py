"""Instance types: which SageMaker knows for which kind of job, which GPUs a host has, and whether a batch fits them.

Reads instances.yaml, botocore's service model, and the figures of the models that were reckoned, memory.yaml, which
`python -m steps memory` writes; writes nothing, needs no network and no torch.
"""

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from params.instances import has_gpus
from params.memory import ModelFigures, denoiser_shape
from params.phases import Phase
from params.programs import TrainArguments
from params.tables import table_beside
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
MEMORY_FILE: Final = Path(__file__).with_name("memory.yaml")
MIB: Final = 1 << 20
# Assumed until measured: CUDA's context, NCCL's buffers and workspaces, and what fragments of the rest are good for.
RESERVED_BYTES: Final = 700_000_000
USABLE_FRACTION: Final = 0.93


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_mib: int
    compute_capability: float


@dataclass(frozen=True)
class Instance:
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
    return choices("ProductionVariantInferenceAmiVersion")


def known_types(kind: JobKind) -> tuple[str, ...]:
    return choices(SHAPES[kind])


def every_type() -> tuple[str, ...]:
    return tuple(sorted({name for kind in SHAPES for name in known_types(kind)}))


def gpu_types() -> tuple[str, ...]:
    return tuple(name for name in every_type() if has_gpus(name))


def nearest_of(name: str, types: Sequence[str]) -> str:
    return difflib.get_close_matches(name, types, n=1, cutoff=0.0)[0]


@functools.cache
def _gpu_instances() -> dict[str, Instance]:
    table = table_beside(__file__)
    instances: dict[str, Instance] = {}
    for gpu_name, about in table.items():
        gpu = Gpu(gpu_name, about["memory_mib"], about["compute_capability"])
        instances |= {name: Instance(name, count, gpu) for name, count in about["instances"].items()}
    return instances


@functools.cache
def known_models() -> tuple[ModelFigures, ...]:
    """Return the models that were reckoned; the first is Stable Diffusion 2."""
    return tuple(map(ModelFigures.model_validate, yaml.safe_load(MEMORY_FILE.read_text(encoding="utf-8"))))


def model_of(config: Mapping[str, Any] | None, name: str) -> ModelFigures | None:
    """Return the model whose denoiser has a configuration, or without one that of a name; None: never reckoned."""
    if config is None:
        return next((model for model in known_models() if model.name == name), None)
    shape = denoiser_shape(config)
    return next((model for model in known_models() if model.denoiser == shape), None)


def usable_bytes(gpu: Gpu) -> float:
    """Return what of a GPU's memory tensors can have."""
    return USABLE_FRACTION * gpu.memory_mib * MIB - RESERVED_BYTES


def training_bytes(
    model: ModelFigures, phase: Phase, gpu: Gpu, ranks: int, micro_batch_size: int, **changes: Any
) -> float | None:
    """Return the peak of a rank in the training of a phase, with some of its settings changed; None: not known."""
    precision = phase.train.precision
    if precision == "auto":
        precision = "bfloat16" if gpu.compute_capability >= BFLOAT16_COMPUTE_CAPABILITY else "float32"
    arguments: TrainArguments = phase.train.model_copy(update={"precision": precision} | changes)
    online = not phase.encode.caption_embeddings
    return model.training_bytes(arguments, phase.encode.resolution_px, micro_batch_size, ranks, online)


def largest(sizes: Iterable[int], gpu: Gpu, bytes_of: Callable[[int], float | None]) -> int:
    """Return the largest of some batch sizes whose peak a GPU has room for; 0: none. One that is not known passes."""
    descending = sorted(sizes, reverse=True)
    return next((size for size in descending if (bytes_of(size) or 0.0) <= usable_bytes(gpu)), 0)


def even_sizes(per_rank: int) -> list[int]:
    """Return the micro-batch sizes with which a rank's share of the global batch comes out even."""
    return [size for size in range(1, per_rank + 1) if per_rank % size == 0]
