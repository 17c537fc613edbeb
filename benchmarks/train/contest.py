"""One comparison: the same model, resolution, batch and device for all who take part.

In each round every contender is built, warmed up, timed and freed, one after the other in one process. A ratio is the
median over the rounds of the ratio within one: the sides of a round see the same machine.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.harness import median_ratio, take_turns
from steps.training.utilisation import peak_bytes, start_over, wait_for

WARM_UP_STEPS: Final = 2
MIN_STEPS: Final = 2
# Images/s and peak bytes of one turn; None: out of memory.
Speeds = list[tuple[float, int] | None]
# Takes one optimizer step.
Step = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """What is trained on what; the last two are ours alone."""

    pretrained: Path
    pictures: Path
    latents: Path
    """The pictures, as Encode leaves them."""
    resolution_px: int
    batch_size: int
    precision: str
    """bfloat16 or float32, of the forward pass."""
    device: torch.device
    workers: int
    """Loader processes of the script."""
    compile: bool
    cuda_graphs: bool


# Builds everything anew, and lets it go afterwards: no one's memory is in another's way.
Contender = Callable[[Task], AbstractContextManager[Step]]


def contest(contenders: Mapping[str, Contender], task: Task, rounds: int, turn_s: float) -> dict[str, Speeds]:
    sides = {name: partial(_turn, contender, task, turn_s) for name, contender in contenders.items()}
    return take_turns(sides, rounds)


def _turn(contender: Contender, task: Task, turn_s: float, _: int) -> tuple[float, int] | None:
    start_over(task.device)
    try:
        with contender(task) as step:
            images_per_s = timed(step, task, turn_s)
    except torch.OutOfMemoryError:
        return None
    return images_per_s, peak_bytes(task.device)


def timed(step: Step, task: Task, turn_s: float) -> float:
    """Return images/s over about `turn_s` seconds after a warm-up; on a CPU by this process's own seconds."""
    for _ in range(WARM_UP_STEPS):
        step()
    steps = max(MIN_STEPS, round(turn_s / elapsed_s(step, 1, task.device, time.perf_counter)))
    return steps * task.batch_size / elapsed_s(step, steps, task.device, clock_of(task.device))


def clock_of(device: torch.device) -> Callable[[], float]:
    return time.process_time if device.type == "cpu" else time.perf_counter


def elapsed_s(step: Step, steps: int, device: torch.device, clock: Callable[[], float]) -> float:
    """Return the time that the steps take; the device is awaited before and after, never between."""
    wait_for(device)
    start_s = clock()
    for _ in range(steps):
        step()
    wait_for(device)
    return clock() - start_s


def ratio(own: Speeds, base: Speeds) -> float | None:
    """Return the median over the rounds of own / base images/s, or None where one has no figures."""
    turns = [(mine, its) for mine, its in zip(own, base, strict=True) if mine and its]
    return median_ratio([mine[0] for mine, _ in turns], [its[0] for _, its in turns]) if turns else None


def memory_ratio(own: Speeds, base: Speeds) -> float | None:
    peaks, base_peaks = ([turn[1] for turn in turns if turn] for turns in (own, base))
    return max(peaks) / max(base_peaks) if peaks and any(base_peaks) else None


def summary(turns: Speeds, flops: int, ceiling_flops_per_s: float) -> dict[str, Any]:
    """Return images/s, MFU and peak memory: medians over the rounds."""
    measured = [turn for turn in turns if turn]
    if not measured:
        return {"error": "out of memory"}
    speeds = [speed for speed, _ in measured]
    return {
        "images_per_s": statistics.median(speeds),
        "mfu": statistics.median(speeds) * flops / ceiling_flops_per_s,
        "peak_gb": max(peak for _, peak in measured) / 1e9 or math.nan,
        "rounds": speeds,
    }
