"""The steps between two log lines: their losses, how the time was spent, and what would silently spoil a training.

Guards count and report that, and stop a training past a limit.
"""

import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
from torch import Tensor

from steps.errors import StepError
from steps.training.optimizer_step import StepResult
from steps.training.ranks import World
from steps.training.training_log import Entry
from steps.training.utilisation import Utilisation

T = TypeVar("T")
# A spike is this many robust standard deviations above the median of the last losses.
SPIKE_DEVIATIONS: Final = 8.0
SPIKE_HISTORY_STEPS: Final = 200
SPIKE_MIN_STEPS: Final = 50
_MAD_TO_DEVIATION: Final = 1.4826


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
        self._results.append(result)

    def timed_data(self, get: Callable[[], T]) -> T:
        """Return the result of `get`, and count its duration as waiting for data."""
        start_s = time.perf_counter()
        value = get()
        self._data_s += time.perf_counter() - start_s
        return value

    def leave_out(self, seconds: float) -> None:
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


class SkipGuard:
    """Counts steps that were skipped because their gradient was not finite."""

    def __init__(self, limit: int, skipped_steps: int = 0) -> None:
        self._limit = limit
        self.skipped_steps = skipped_steps

    def note(self, skipped: Sequence[bool], first_sample: int, batch_samples: int) -> None:
        """Add the steps since the last call, from position `first_sample` on. Raises StepError past the limit."""
        for index, was_skipped in enumerate(skipped):
            if was_skipped:
                self.skipped_steps += 1
                start = first_sample + index * batch_samples
                print(f"step skipped: gradient not finite at samples {start} to {start + batch_samples}", flush=True)
        if self.skipped_steps > self._limit:
            raise StepError(
                f"{self.skipped_steps} steps had a gradient that is not finite (max_skipped_steps {self._limit}); "
                "lower learning_rate, lengthen warmup_samples, or look at the samples named above"
            )


class SpikeGuard:
    """Reports the samples at which the loss jumped; training continues."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=SPIKE_HISTORY_STEPS)

    def note(self, losses: Sequence[float], first_sample: int, batch_samples: int) -> None:
        """Add the losses of the steps since the last call."""
        for index, loss in enumerate(losses):
            if self._is_spike(loss):
                start = first_sample + index * batch_samples
                print(f"loss spike: {loss:.6g} at samples {start} to {start + batch_samples}", flush=True)
            self._losses.append(loss)

    def _is_spike(self, loss: float) -> bool:
        if len(self._losses) < SPIKE_MIN_STEPS:
            return False
        median = statistics.median(self._losses)
        deviation = _MAD_TO_DEVIATION * statistics.median(abs(value - median) for value in self._losses)
        return loss > median + SPIKE_DEVIATIONS * deviation


def check_replicas(world: World, parameters: Sequence[Tensor], seen_samples: int) -> None:
    """Raise StepError that names the ranks whose weights differ from the majority's in any bit."""
    checksums = world.gather_int(weights_checksum(parameters))
    common, _ = Counter(checksums).most_common(1)[0]
    strays = [rank for rank, checksum in enumerate(checksums) if checksum != common]
    if strays:
        raise StepError(
            f"after {seen_samples} samples the weights of rank {', '.join(map(str, strays))} differ from the others': "
            "a faulty device or link; take that host out and start again: the last checkpoint is good"
        )


@torch.no_grad()
def weights_checksum(parameters: Sequence[Tensor]) -> int:
    """Return a number (int64) that changes with any bit, and with the order, of the tensors."""
    integer = {4: torch.int32, 8: torch.int64}
    sums = torch.stack([p.detach().view(integer[p.element_size()]).sum(dtype=torch.int64) for p in parameters])
    odd = torch.arange(1, 2 * len(parameters), 2, dtype=torch.int64, device=sums.device)
    return int((sums * odd).sum())
