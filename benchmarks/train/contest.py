"""Turns: in each round every contender is built, warmed up, timed and freed, one after the other in one process.

A ratio is the median over the rounds of the ratio within one: the sides of a round see the same machine.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from benchmarks.harness import median_ratio
from benchmarks.train.task import Contender, Step, Task
from steps.training.utilisation import peak_bytes, start_over, wait_for

WARM_UP_STEPS: Final = 2
MIN_STEPS: Final = 2


@dataclass
class ContenderFigures:
    """Figures of one contender so far: an entry for each round."""

    images_per_s: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    error: str = ""
    """Why it has no figures: out of memory."""


def contest(contenders: Mapping[str, Contender], task: Task, rounds: int, turn_s: float) -> dict[str, ContenderFigures]:
    """Return the figures of all contenders after `rounds` rounds of turns of about `turn_s` seconds."""
    figures = {name: ContenderFigures() for name in contenders}
    for number in range(rounds):
        # A different one comes first each round: the machine may slow down within a round.
        names = list(contenders)[number % len(contenders) :] + list(contenders)[: number % len(contenders)]
        for name in names:
            if not figures[name].error:
                _turn(contenders[name], task, turn_s, figures[name])
    return figures


def _turn(contender: Contender, task: Task, turn_s: float, figures: ContenderFigures) -> None:
    start_over(task.device)
    try:
        with contender(task) as step:
            images_per_s = timed(step, task, turn_s)
    except torch.OutOfMemoryError:
        figures.error = "out of memory"
        return
    figures.images_per_s.append(images_per_s)
    figures.peak_bytes.append(peak_bytes(task.device))


def timed(step: Step, task: Task, turn_s: float) -> float:
    """Return images/s over about `turn_s` seconds, after a warm-up that is not counted.

    On a CPU these are CPU-seconds of this process, which other load on the machine does not change.
    """
    steps = steps_for(step, turn_s, task.device)
    return steps * task.batch_size / elapsed_s(step, steps, task.device, clock_of(task.device))


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock of a comparison."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def steps_for(step: Step, turn_s: float, device: torch.device) -> int:
    """Warm up, and return the number of steps in a turn."""
    for _ in range(WARM_UP_STEPS):
        step()
    return max(MIN_STEPS, round(turn_s / elapsed_s(step, 1, device, time.perf_counter)))


def elapsed_s(step: Step, steps: int, device: torch.device, clock: Callable[[], float]) -> float:
    """Return the time that the steps take; the device is awaited before and after, never between."""
    wait_for(device)
    start_s = clock()
    for _ in range(steps):
        step()
    wait_for(device)
    return clock() - start_s


def ratio(own: ContenderFigures, base: ContenderFigures) -> float | None:
    """Return the median over the rounds of own / base images/s, or None where one has no figures."""
    if own.error or base.error:
        return None
    return median_ratio(own.images_per_s, base.images_per_s)


def memory_ratio(own: ContenderFigures, base: ContenderFigures) -> float | None:
    """Return own / base peak memory, or None where one has no figures."""
    if own.error or base.error or not max(base.peak_bytes):
        return None
    return max(own.peak_bytes) / max(base.peak_bytes)


def summary(figures: ContenderFigures, flops: int, ceiling_flops_per_s: float) -> dict[str, Any]:
    """Return images/s, MFU and peak memory: medians over the rounds."""
    if figures.error:
        return {"error": figures.error}
    images_per_s = statistics.median(figures.images_per_s)
    return {
        "images_per_s": images_per_s,
        "mfu": images_per_s * flops / ceiling_flops_per_s,
        "peak_gb": max(figures.peak_bytes) / 1e9 or math.nan,
        "rounds": figures.images_per_s,
    }
