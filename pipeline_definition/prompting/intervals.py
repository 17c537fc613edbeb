"""Means over a few prompts with 95 % intervals that hold the truth 95 times in 100. Reads nothing, writes nothing.

Student's t, transformed for the skewness of the values (Hall 1992, On the removal of skewness by transformation):
CLIP scores have a long lower tail, and resampling eight of them gives intervals that hold the truth 86 times in 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE: Final = 0.95
# With fewer values no interval is worth its name; with fewer than ADVISED it is too wide to choose by.
FEWEST: Final = 4
ADVISED: Final = 16
DIGITS: Final = 6


@dataclass(frozen=True)
class Estimate:
    mean: float
    low: float | None
    """None, as `high`: of fewer than FEWEST values."""
    high: float | None

    @property
    def is_above_zero(self) -> bool:
        return self.low is not None and self.low > 0

    def interval(self, form: str) -> str:
        """Return `0.81 to 0.93`, each bound in this form; empty where there is none."""
        return "" if self.low is None or self.high is None else f"{self.low:{form}} to {self.high:{form}}"


def estimate(values: Sequence[float], comparisons: int = 1) -> Estimate:
    """Return the mean of values with its interval; of several `comparisons` all hold together (Bonferroni)."""
    mean, n = float(np.mean(values)), len(values)
    if n < FEWEST:
        return Estimate(round(mean, DIGITS), None, None)
    error = float(np.std(values, ddof=1)) / n**0.5
    tail = (1 - CONFIDENCE) / 2 / comparisons
    # Far out in the tails, where several comparisons hold together, a few values say nothing of their skewness.
    skewness = float(stats.skew(values)) / n**0.5 if error > 1e-12 and comparisons == 1 else 0.0
    bounds = (mean - error * _untransformed(float(stats.t.ppf(1 - at, n - 1)), skewness) for at in (tail, 1 - tail))
    return Estimate(*(round(value, DIGITS) for value in (mean, *bounds)))


def shrunk(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the means of the columns, drawn towards their common mean by as much as chance made them differ.

    The largest of many means is larger than what it estimates; these are not (empirical Bayes, Efron and Morris 1975).
    Rows are prompts, which all columns share: how hard a prompt is does not count as chance.
    """
    means, (rows, columns) = scores.mean(axis=0), scores.shape
    if rows < 2 or columns < 2:
        return np.asarray(means)
    centre = means.mean()
    left = scores - means - scores.mean(axis=1, keepdims=True) + centre
    by_chance = float((left**2).sum()) / ((rows - 1) * (columns - 1)) / rows
    spread = float(((means - centre) ** 2).sum()) / (columns - 1)
    kept = max(0.0, 1 - by_chance / spread) if spread else 0.0
    return np.asarray(centre + kept * (means - centre))


def reservation(prompts: int) -> str:
    """Return what is to be said of results from so few prompts; empty where there are enough."""
    if prompts < FEWEST:
        return f"Fewer than {FEWEST} prompts: there are no intervals, and nothing is shown to be better than the rest."
    if prompts < ADVISED:
        return f"Only {prompts} prompts: expect wide intervals; {ADVISED} or more tell settings apart."
    return ""


def _untransformed(quantile: float, skewness: float) -> float:
    """Return Hall's inverse: the quantile of the studentized mean where the transformed one has this quantile."""
    if abs(skewness) < 1e-9:
        return quantile
    return float(3 / skewness * (np.cbrt(1 + skewness * (quantile - skewness / 6)) - 1))
