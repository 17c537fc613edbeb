"""Means with 95 % bootstrap percentile intervals (Efron 1979). Reads nothing, writes nothing."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    mean: float
    low: float
    high: float


def resamples(count: int, replicates: int) -> list[list[int]]:
    """Return which of `count` values each resample holds: the same for every estimate, and for every run."""
    numbers = random.Random(0)
    return [numbers.choices(range(count), k=count) for _ in range(replicates)]


def estimate(values: Sequence[float], resampled: Sequence[Sequence[int]]) -> Estimate:
    """Return the mean of values with the interval that their resamples give it."""
    means = sorted(statistics.fmean(values[index] for index in sample) for sample in resampled)
    tail = round((1 - LEVEL) / 2 * len(means))
    return Estimate(statistics.fmean(values), means[tail], means[-tail - 1])
