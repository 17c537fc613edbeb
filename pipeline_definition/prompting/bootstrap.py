"""Means with 95 % bootstrap percentile intervals (Efron 1979). Reads nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

TAILS: Final = (0.025, 0.975)
REPLICATES: Final = 2000
DIGITS: Final = 6


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values with the interval of its resamples: the same ones for as many values, in every run."""
    means = np.random.default_rng(0).choice(values, (REPLICATES, len(values))).mean(axis=1)
    return Estimate(*(round(float(value), DIGITS) for value in (np.mean(values), *np.quantile(means, TAILS))))
