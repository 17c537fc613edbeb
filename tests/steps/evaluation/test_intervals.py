"""Confidence intervals hold the value and are as wide as the spread over repeated experiments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from steps.evaluation.intervals import interval, mean_replicates


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(0.3, 0.1, 500)
    low, high = interval(values.mean(), mean_replicates(values, seed=0))
    expected = stats.t.interval(0.95, 499, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(1)
    covered = 0
    for repeat in range(200):
        values = numbers.exponential(1.0, 100)
        low, high = interval(values.mean(), mean_replicates(values, repeat, count=200))
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_biased_replicates_are_moved_onto_the_value() -> None:
    replicates = np.linspace(9.0, 13.0, 1001)
    assert interval(10.0, replicates) == pytest.approx((8.1, 11.9))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=50)
    assert np.array_equal(mean_replicates(values, 5), mean_replicates(values, 5))
    assert not np.array_equal(mean_replicates(values, 5), mean_replicates(values, 6))
