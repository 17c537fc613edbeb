"""The figures of the models that were reckoned, and whether a micro-batch of theirs fits a GPU.

Reads memory.yaml, which `python -m steps memory` writes; writes nothing, needs no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from params.memory import ModelFigures, denoiser_shape
from params.phases import Phase
from params.programs import TrainArguments
from pipeline_definition.jobs.instances import BFLOAT16_COMPUTE_CAPABILITY, Gpu

MEMORY_FILE: Final = Path(__file__).with_name("memory.yaml")
MIB: Final = 1 << 20
# Assumed until measured: CUDA's context, NCCL's buffers and workspaces, and what fragments of the rest are good for.
RESERVED_BYTES: Final = 700_000_000
USABLE_FRACTION: Final = 0.93


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


def whole_bytes(gpu: Gpu) -> int:
    """Return all of a GPU's memory."""
    return gpu.memory_mib * MIB


def usable_bytes(gpu: Gpu) -> float:
    """Return what of a GPU's memory tensors can have."""
    return USABLE_FRACTION * whole_bytes(gpu) - RESERVED_BYTES


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
