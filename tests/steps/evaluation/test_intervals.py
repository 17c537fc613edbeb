"""Confidence intervals are those of theory and hold the truth as often as they say."""

import numpy as np
import pytest
from scipy import stats

from steps.evaluation.intervals import interval


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(0.3, 0.1, 50)
    expected = stats.t.interval(0.95, 49, values.mean(), stats.sem(values))
    assert interval(values.mean(), values) == pytest.approx(expected)


@pytest.mark.parametrize("count", [8, 30, 500])
def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says(count: int) -> None:
    numbers, held = np.random.default_rng(1), 0
    for _ in range(1000):
        values = numbers.normal(1.0, 2.0, count)
        low, high = interval(values.mean(), values)
        held += low <= 1.0 <= high
    assert 0.93 <= held / 1000 <= 0.97


def test_what_no_picture_changes_has_an_interval_of_no_width() -> None:
    assert interval(0.0, np.zeros(9)) == (0.0, 0.0)
