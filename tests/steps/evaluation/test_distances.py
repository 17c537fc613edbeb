"""FID and KID agree with computations that share no code with them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from steps.evaluation.distances import Yardstick, fid, fid_replicates, kid, kid_replicates
from steps.evaluation.intervals import Floats, interval


def features(seed: int, count: int = 300, width: int = 12, scale: float = 1.0, offset: float = 0.0) -> Floats:
    numbers = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return offset + scale * numbers.normal(size=(count, width)) @ mixing


def fid_by_scipy(real: Floats, generated: Floats) -> float:
    """Heusel et al.'s own formula with a general matrix square root."""
    first, second = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    difference = real.mean(0) - generated.mean(0)
    return float(difference @ difference + np.trace(first + second - 2 * np.real(root)))


def cubic_kernel(first: Floats, second: Floats) -> Floats:
    """Binkowski et al.'s kernel."""
    return np.asarray((first @ second.T / first.shape[1] + 1.0) ** 3)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.3, 0.5), (0.2, -2.0)])
def test_fid_agrees_with_an_independent_computation(scale: float, offset: float) -> None:
    real, generated = features(0), features(1, scale=scale, offset=offset)
    expected = fid_by_scipy(real, generated)
    assert fid(real, generated) == pytest.approx(expected, rel=1e-6, abs=1e-3)
    assert Yardstick(real).distance(generated) == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_fid_survives_fewer_pictures_than_features() -> None:
    real, generated = features(0, count=9), features(1, count=8, offset=1.0)
    value = fid(real, generated)
    assert np.isfinite(value)
    assert Yardstick(real).distance(generated) == pytest.approx(value, rel=1e-3)


def test_fid_of_a_set_with_itself_is_zero() -> None:
    assert fid(features(0), features(0)) == pytest.approx(0.0, abs=1e-6)


def test_the_interval_of_fid_is_as_wide_as_its_spread_over_fresh_pictures() -> None:
    real = features(0, count=2000)
    fresh = np.array([fid(real, features(seed, offset=0.5)) for seed in range(1, 101)])
    spread = np.subtract(*np.quantile(fresh, [0.975, 0.025]))
    sample = features(1, offset=0.5)
    low, high = interval(fid(real, sample), fid_replicates(real, sample, seed=0))
    assert low < fid(real, sample) < high
    assert 0.5 * spread < high - low < 2.0 * spread


def test_kid_agrees_with_an_independent_computation() -> None:
    real, generated = features(0, count=200), features(1, count=200, offset=0.5)
    within = [cubic_kernel(rows, rows) for rows in (real, generated)]
    expected = sum((kernel.sum() - np.trace(kernel)) / (200 * 199) for kernel in within)
    expected -= 2 * cubic_kernel(real, generated).mean()
    value, deviation = kid(real, generated, seed=0)
    assert deviation > 0
    # The mean of 100 random halves estimates the same number.
    assert value == pytest.approx(expected, abs=4 * deviation / np.sqrt(100) + 1e-6)


def test_the_interval_of_kid_is_as_wide_as_its_spread_over_fresh_pictures() -> None:
    real = features(0, count=600)
    fresh = np.array([kid(real, features(seed, offset=0.5), seed=0)[0] for seed in range(1, 41)])
    replicates = kid_replicates(real, features(1, offset=0.5), seed=0)
    assert replicates.shape == (200,)
    assert 0.5 * fresh.std() < replicates.std() < 2.0 * fresh.std()


def test_resamples_of_kid_are_those_of_an_independent_computation() -> None:
    real, generated = features(0, count=50), features(1, count=700, offset=0.5)
    rows = np.random.default_rng(3).integers(700, size=700)
    kernel = cubic_kernel(generated[rows], generated[rows])
    kernel[rows[:, None] == rows] = 0.0
    expected = kernel.sum() / (700 * 699) - 2 * cubic_kernel(real, generated[rows]).mean()
    assert kid_replicates(real, generated, seed=3, count=1) == pytest.approx([expected])


def test_kid_depends_on_its_own_seed_alone() -> None:
    real, generated = features(0), features(1)
    assert kid(real, generated, seed=4) == kid(real, generated, seed=4)
    assert kid(real, generated, seed=4) != kid(real, generated, seed=5)
