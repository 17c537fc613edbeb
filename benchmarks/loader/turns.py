"""Measures loaders in turns, so that all of them see the same machine: samples per CPU-second of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Batches taken before the clock starts: what was read ahead while others were measured costs nothing.
UNCOUNTED_BATCHES = 8
_IDLE_S = 0.02


@dataclass
class LoaderFigures:
    """What one loader has shown so far: one figure for each round."""

    samples_per_cpu_s: list[float] = field(default_factory=list)
    read_bytes_per_sample: list[float] = field(default_factory=list)
    """What the process asked the file system for; 0 where the loader maps its files."""


def measure(loaders: Mapping[str, Iterator[int]], rounds: int, turn_cpu_s: float) -> dict[str, LoaderFigures]:
    """Return every loader's figures; the first turn of each is not counted."""
    figures = {name: LoaderFigures() for name in loaders}
    for number in range(rounds + 1):
        for name, batches in loaders.items():
            rate, read_bytes = _turn(batches, turn_cpu_s)
            if number:
                figures[name].samples_per_cpu_s.append(rate)
                figures[name].read_bytes_per_sample.append(read_bytes)
    return figures


def _turn(batches: Iterator[int], turn_cpu_s: float) -> tuple[float, float]:
    for _ in range(UNCOUNTED_BATCHES):
        next(batches)
    samples, read_before = 0, _read_bytes()
    start_s = time.process_time()
    while (cpu_s := time.process_time() - start_s) < turn_cpu_s:
        samples += next(batches)
    read_bytes = _read_bytes() - read_before
    _wait_until_idle(time.process_time)
    return samples / cpu_s, read_bytes / samples


def _read_bytes() -> int:
    """Return how many bytes this process has read through system calls; 0 where the system does not tell."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split()[1])


def _wait_until_idle(cpu_s: Callable[[], float]) -> None:
    """Let threads that read ahead finish, so that the next loader does not pay for them."""
    before = cpu_s()
    while True:
        time.sleep(_IDLE_S)
        now = cpu_s()
        if now - before < _IDLE_S / 10:
            return
        before = now
