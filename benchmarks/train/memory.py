"""Peak memory of training, measured in a process of its own, beside its estimate by fake tensors.

    python -m benchmarks.train --memory --device cpu|cuda [--json]

On a GPU it is torch's max_memory_allocated, on a CPU the growth of the peak resident set over what was in memory before
the model was built. Training is ours, one rank, not compiled, with and without gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from benchmarks.harness import in_new_processes
from benchmarks.train.contest import Task
from benchmarks.train.ours import arguments_of, ours
from steps.data.loading.latents import LatentsDataset
from steps.model.families import denoiser_of
from steps.model.pretrained import empty_text_encoders
from steps.training.objective import FORWARD_DTYPES
from steps.training.peak_memory import FakeNetwork, parameter_count, training_peak_bytes
from steps.training.utilisation import peak_bytes, resident_bytes, start_over

STEPS: Final = 2
# What is freed goes back to the system at once: otherwise the peak is of what malloc keeps.
MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def memory(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    return [row for task in tasks for row in _rows(replace(task, compile=False, cuda_graphs=False))]


def _rows(task: Task) -> Iterator[dict[str, Any]]:
    for checkpointing in (False, True):
        changes = {"gradient_checkpointing": checkpointing}
        [measured] = in_new_processes(_measure, [(task, changes)], **MALLOC)
        estimated = estimated_bytes(task, changes)
        yield {
            "resolution_px": task.resolution_px,
            "batch_size": task.batch_size,
            **changes,
            "measured_gb": measured / 1e9,
            "estimated_gb": estimated / 1e9,
            "ratio": measured / estimated,
        }


def estimated_bytes(task: Task, changes: dict[str, Any]) -> float:
    """Return the estimate of ours: one rank without accumulation makes its gradients anew in every step."""
    arguments = arguments_of(task).model_copy(update=changes)
    manifest = LatentsDataset(task.latents).manifest
    denoiser = denoiser_of(task.pretrained)
    text = sum(map(parameter_count, empty_text_encoders(task.pretrained, denoiser.family).values()))
    positions = denoiser.reader(task.pretrained, manifest.caption_length, None).positions
    network = FakeNetwork(
        denoiser,
        denoiser.config(task.pretrained),
        arguments.precision,
        arguments.gradient_checkpointing,
        on_gpu=task.device.type == "cuda",
        keeps_gradients=False,
    )
    peak = training_peak_bytes(network, arguments, manifest.latent_shape, positions)
    return peak + text * FORWARD_DTYPES[arguments.precision].itemsize


def _measure(task: Task, changes: dict[str, Any]) -> int:
    """Return the peak of a few optimizer steps, after one that is not counted.

    A training of single samples comes first, so that the libraries' own memory is there before the first figure.
    """
    torch.set_num_threads(1)
    with ours(replace(task, batch_size=1), changes=changes) as step:
        step()
    del step
    start_over(task.device)
    before = 0 if task.device.type == "cuda" else resident_bytes()
    with ours(task, changes=changes) as step:
        step()
        start_over(task.device)
        for _ in range(STEPS):
            step()
        return peak_bytes(task.device) - before
