"""The steps between two log lines: their losses, and how the time was spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from steps.training.optimizer_step import StepResult
from steps.training.ranks import World
from steps.training.training_log import Entry
from steps.training.utilisation import Utilisation

T = TypeVar("T")


@dataclass(frozen=True)
class WindowFigures:
    """Figures of a window, the same on all ranks except for the times."""

    first_sample: int
    """Position at which the window began."""
    losses: list[float]
    """Of each step: the mean over its global batch."""
    gradient_norms: list[float]
    """Before clipping."""
    skipped: list[bool]
    elapsed_s: float
    """Without validation and checkpoints."""
    data_s: float
    """Part of it that was spent waiting for the loader."""

    @property
    def mean_loss(self) -> float | None:
        """Mean over the steps that were not skipped."""
        kept = [loss for loss, skipped in zip(self.losses, self.skipped, strict=True) if not skipped]
        return math.fsum(kept) / len(kept) if kept else None

    def speed(self, batch_samples: int, ranks: int, utilisation: Utilisation, communication_s: float) -> Entry:
        """Return the speed for the log, at `batch_samples` per step: rates, utilisation, how the time was spent."""
        iterations_per_s = len(self.losses) / self.elapsed_s
        images_per_s = iterations_per_s * batch_samples
        return {
            "iterations_per_s": iterations_per_s,
            "images_per_s": images_per_s,
            "images_per_s_per_gpu": images_per_s / ranks,
            **utilisation.figures(images_per_s / ranks),
            "data_s": self.data_s,
            "compute_s": self.elapsed_s - self.data_s - communication_s,
            "communication_s": communication_s,
        }


class Window:
    """Collects steps; closing it waits for the device."""

    def __init__(self, first_sample: int) -> None:
        self._first_sample = first_sample
        self._results: list[StepResult] = []
        self._start_s, self._paused_s, self._data_s = time.perf_counter(), 0.0, 0.0

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: StepResult) -> None:
        """Add a step."""
        self._results.append(result)

    def timed_data(self, get: Callable[[], T]) -> T:
        """Return the result of `get`, and count its duration as waiting for data."""
        start_s = time.perf_counter()
        value = get()
        self._data_s += time.perf_counter() - start_s
        return value

    def leave_out(self, seconds: float) -> None:
        """Leave `seconds` out of the training time."""
        self._paused_s += seconds

    def close(self, world: World) -> WindowFigures:
        """Return the figures over all ranks."""
        rows = [torch.stack([r.loss.double(), r.gradient_norm.double(), r.skipped.double()]) for r in self._results]
        figures = torch.stack(rows).cpu()
        losses = world.sum_(figures[:, 0].contiguous())
        return WindowFigures(
            first_sample=self._first_sample,
            losses=losses.tolist(),
            gradient_norms=figures[:, 1].tolist(),
            skipped=figures[:, 2].bool().tolist(),
            elapsed_s=time.perf_counter() - self._start_s - self._paused_s,
            data_s=self._data_s,
        )
