"""FID and KID agree with computations that share no code with them, and their intervals with known truth."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from steps.evaluation.distances import KernelYardstick, Yardstick, cubic, enough_pictures
from steps.evaluation.intervals import Floats, interval
from tests.steps.evaluation.simulated_models import ONE, OTHER, World

pytestmark = pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all:UserWarning")

# Pictures for each feature.
ALLOWED = (1.5, 2, 4, 15)


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


class GivenFeatures(nn.Module):
    """Replaces the network that torchmetrics expects."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def by_torchmetrics(metric: FrechetInceptionDistance | KernelInceptionDistance, real: Floats, drawn: Floats) -> float:
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(drawn).double(), real=False)
    found = metric.compute()
    return float(found[0] if isinstance(found, tuple) else found)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.3, 0.5), (0.2, -2.0)])
def test_fid_agrees_with_independent_computations(scale: float, offset: float) -> None:
    real, generated = features(0), features(1, scale=scale, offset=offset)
    yardstick = Yardstick(real)
    expected = fid_by_scipy(real, generated)
    assert yardstick.distance(generated) == yardstick.measure(generated).value
    assert yardstick.distance(generated) == pytest.approx(expected, rel=1e-6, abs=1e-3)
    metric = FrechetInceptionDistance(feature=GivenFeatures(12))
    assert yardstick.distance(generated) == pytest.approx(by_torchmetrics(metric, real, generated), rel=1e-7, abs=1e-7)


def test_fid_survives_fewer_pictures_than_features() -> None:
    real, generated = features(0, count=9), features(1, count=8, offset=1.0)
    measured = Yardstick(real).measure(generated)
    assert measured.value == pytest.approx(fid_by_scipy(real, generated), rel=1e-3)
    assert np.isfinite(measured.parts).all()


def test_fid_of_a_set_with_itself_is_zero() -> None:
    assert Yardstick(features(0)).distance(features(0)) == pytest.approx(0.0, abs=1e-6)


def test_influences_are_what_a_picture_that_counts_for_a_little_more_adds() -> None:
    real, generated = features(0, count=900), features(1, offset=0.5)
    yardstick = Yardstick(real)
    # Ten times the same pictures, and one of them once more.
    many = [yardstick.distance(np.vstack([generated] * 10 + [one[None]])) for one in generated[:9]]
    added, parts = 3001 * np.array(many), yardstick.measure(generated).parts[:9]
    assert added - added.mean() == pytest.approx(parts - parts.mean(), rel=0.05, abs=0.5)


def test_the_case_of_the_issue_fid_of_few_pictures_is_far_off_and_the_extrapolated_one_is_not() -> None:
    """27.9 with d / 8 pictures where the truth is 0.95; extrapolated, 15 d and 2 d pictures say the same."""
    world = World(128)
    truth = world.truth(ONE)
    for per_feature, tolerance in ((2, 0.35), (5, 0.15), (15, 0.1)):
        drawn = [world.draw(world.noise(per_feature * 128), ONE) for _ in range(4)]
        extrapolated = np.mean([world.yardstick.extrapolated(one) for one in drawn])
        assert extrapolated == pytest.approx(truth, rel=tolerance)
    assert world.yardstick.distance(world.draw(world.noise(16), ONE)) > 20 * truth


@pytest.mark.parametrize("width", [16, 48])
def test_intervals_of_the_extrapolated_fid_and_of_differences_hold_the_truth(width: int) -> None:
    world, repeats = World(width), 120
    truth, difference = world.truth(ONE), world.truth(ONE) - world.truth(OTHER)
    held, held_difference, wrong = [], [], 0
    for per_feature in ALLOWED:
        for _ in range(repeats):
            noise = world.noise(int(per_feature * width))
            one, other = (world.draw(noise, model) for model in (ONE, OTHER))
            values = [world.yardstick.extrapolated(drawn) for drawn in (one, other)]
            parts = [world.yardstick.measure(drawn).parts for drawn in (one, other)]
            low, high = interval(values[0], parts[0])
            held.append(low <= truth <= high)
            low, high = interval(values[0] - values[1], parts[0] - parts[1])
            held_difference.append(low <= difference <= high)
            wrong += low > 0 > difference or high < 0 < difference
    assert 0.93 <= np.mean(held) <= 0.97
    assert 0.93 <= np.mean(held_difference) <= 0.97
    assert wrong <= 0.05 * len(held)
    for place in range(len(ALLOWED)):
        assert np.mean(held_difference[place * repeats : (place + 1) * repeats]) >= 0.9


def test_the_better_of_two_models_is_named_wherever_the_interval_leaves_zero() -> None:
    """The case of the issue: with d / 8 pictures, plain FID names the wrong one."""
    world, width = World(64, seed=3), 64
    difference = world.truth(ONE) - world.truth(OTHER)
    assert abs(difference) > 0.003
    decided = 0
    for per_feature in (1.5, 2, 5, 15):
        for _ in range(30):
            noise = world.noise(int(per_feature * width))
            one, other = (world.draw(noise, model) for model in (ONE, OTHER))
            value = world.yardstick.extrapolated(one) - world.yardstick.extrapolated(other)
            parts = world.yardstick.measure(one).parts - world.yardstick.measure(other).parts
            low, high = interval(value, parts)
            decided += low > 0 or high < 0
            assert not (low > 0 > difference or high < 0 < difference)
    assert decided > 10


def test_half_as_many_pictures_again_as_features_are_enough() -> None:
    assert (enough_pictures(2048), enough_pictures(64), enough_pictures(3)) == (3072, 96, 5)


def test_kid_agrees_with_independent_computations() -> None:
    real, generated = features(0, count=200), features(1, count=700, offset=0.5)
    kernels = [(a @ b.T / 12 + 1.0) ** 3 for a, b in ((real, real), (generated, generated), (real, generated))]
    expected = sum((kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in kernels[:2])
    measured = KernelYardstick(real, cubic).measure(generated)
    assert measured.value == pytest.approx(expected - 2 * kernels[2].mean())
    far = features(2, count=700, offset=3.0)
    metric = KernelInceptionDistance(GivenFeatures(12), subsets=100, subset_size=150)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert KernelYardstick(real, cubic).measure(far).value == pytest.approx(
            by_torchmetrics(metric, real, far), rel=0.05
        )


def test_kid_has_no_excess_at_few_pictures_and_its_intervals_hold_the_truth() -> None:
    world, width, repeats = World(16), 16, 200
    yardstick = KernelYardstick(world.noise(400), cubic)
    truth = np.mean([yardstick.measure(world.draw(world.noise(2000), ONE)).value for _ in range(20)])
    for pictures in (width // 2, 2 * width, 8 * width):
        measured = [yardstick.measure(world.draw(world.noise(pictures), ONE)) for _ in range(repeats)]
        values = np.array([one.value for one in measured])
        assert abs(values.mean() - truth) < 4 * values.std() / repeats**0.5
        held = [low <= truth <= high for low, high in (interval(one.value, one.parts) for one in measured)]
        assert np.mean(held) >= 0.9
