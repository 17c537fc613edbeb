"""Confidence intervals of what is measured picture by picture: Student's t over the pictures.

A mean's parts are its values. A distance's are its influences, what each picture adds to it: to first order it is
their mean (Hampel 1974, The Influence Curve and its Role in Robust Estimation). Differences of two models on the same
prompts have the differences of their parts, so that what is hard for both cancels out. A share has an exact interval.
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE: Final = 0.95

Floats = npt.NDArray[np.floating[Any]]


def interval(value: float, parts: Floats) -> tuple[float, float]:
    """Return the interval around a value; parts that are all equal, as a model's against itself, give the value."""
    spread = float(parts.std(ddof=1)) / math.sqrt(len(parts))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(parts) - 1)) * spread
    return value - reach, value + reach


def share(hits: npt.NDArray[np.bool_], **facts: Any) -> dict[str, Any]:
    """Return an entry of metrics.json: the share of hits, and its exact interval (Clopper and Pearson 1934)."""
    count, of = int(hits.sum()), len(hits)
    low, high = map(float, stats.binomtest(count, of).proportion_ci(CONFIDENCE, "exact"))
    return {"value": count / of, "low": low, "high": high, "confidence": CONFIDENCE, "pictures": of, **facts}
