"""Bootstrap confidence intervals (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

CONFIDENCE: Final = 0.95
MEAN_REPLICATES: Final = 1000

Floats = npt.NDArray[np.floating[Any]]


def interval(value: float, replicates: Floats) -> tuple[float, float]:
    """Return the percentile interval of the replicates, moved so that their mean lies on the value.

    A resample has fewer distinct pictures than the sample, which lifts the FID of every replicate by the same bias:
    unmoved, the percentiles might not even contain the value.
    """
    low, high = np.quantile(replicates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    shift = value - replicates.mean()
    return float(low + shift), float(high + shift)


def mean_replicates(values: Floats, seed: int, count: int = MEAN_REPLICATES) -> Floats:
    """Return the means of `count` resamples of the values, (count,)."""
    draws = np.random.default_rng(seed)
    return np.array([values[draws.integers(len(values), size=len(values))].mean() for _ in range(count)])
