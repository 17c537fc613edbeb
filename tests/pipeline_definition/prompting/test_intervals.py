"""Do 95 % intervals hold the truth 95 times in 100, and is the best of many settings as good as it is said to be?"""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline_definition.prompting.intervals import FEWEST, estimate, shrunk

Draw = Callable[[int], np.ndarray]
NUMBERS = np.random.default_rng(0)
# CLIP scores have a long lower tail; exponential values a heavier one than any scores that were seen.
NORMAL: tuple[Draw, float] = (lambda n: NUMBERS.normal(size=n), 0.0)
SKEWED: tuple[Draw, float] = (lambda n: NUMBERS.beta(8, 1, size=n), 8 / 9)
TRIALS = 3000


def coverage(prompts: int, draw: Draw, truth: float) -> float:
    held = 0
    for _ in range(TRIALS):
        found = estimate(draw(prompts))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    return held / TRIALS


@pytest.mark.parametrize(("draw", "truth"), [NORMAL, SKEWED], ids=["normal", "skewed"])
@pytest.mark.parametrize("prompts", [8, 16, 64])
def test_intervals_hold_the_truth_in_95_of_100_studies_from_8_prompts_on(
    prompts: int, draw: Draw, truth: float
) -> None:
    assert 0.93 <= coverage(prompts, draw, truth) <= 0.97


@pytest.mark.parametrize(("draw", "truth"), [NORMAL, SKEWED], ids=["normal", "skewed"])
def test_at_the_fewest_prompts_that_have_an_interval_it_still_holds_nine_times_in_ten(draw: Draw, truth: float) -> None:
    assert coverage(FEWEST, draw, truth) >= 0.9
    assert estimate(draw(FEWEST - 1)).low is None


def test_several_intervals_hold_together() -> None:
    together = 0
    for _ in range(TRIALS // 3):
        found = [estimate(NUMBERS.normal(size=8), comparisons=10) for _ in range(10)]
        together += all(one.low is not None and one.high is not None and one.low <= 0 <= one.high for one in found)
    assert together / (TRIALS // 3) >= 0.93


def test_values_that_are_all_the_same_have_no_width() -> None:
    found = estimate([0.25] * 8)
    assert (found.mean, found.low, found.high, found.interval(".2f")) == (0.25, 0.25, 0.25, "0.25 to 0.25")


@pytest.mark.parametrize("spread", [0.0, 0.03])
@pytest.mark.parametrize("settings", [4, 24, 96])
def test_the_best_of_many_is_not_said_to_be_better_than_it_is(settings: int, spread: float) -> None:
    said, scored = [], []
    for _ in range(600):
        truth = 0.5 + spread * NUMBERS.normal(size=settings)
        hard = 0.1 * NUMBERS.normal(size=(8, 1))
        scores = truth + hard + 0.08 * NUMBERS.normal(size=(8, settings))
        best = int(scores.mean(axis=0).argmax())
        said.append(shrunk(scores)[best] - truth[best])
        scored.append(scores.mean(axis=0)[best] - truth[best])
    assert np.mean(scored) > 0.015, "the score itself is too high: by luck it is the best"
    assert abs(np.mean(said)) < np.mean(scored) / 2
    assert np.mean(np.square(said)) < np.mean(np.square(scored))


def test_shrinking_keeps_the_order_and_the_mean() -> None:
    scores = np.array([[0.1, 0.5, 0.3], [0.2, 0.7, 0.4], [0.1, 0.6, 0.5]])
    drawn = shrunk(scores)
    assert list(drawn.argsort()) == list(scores.mean(axis=0).argsort())
    assert drawn.mean() == pytest.approx(scores.mean())
    assert np.ptp(drawn) < np.ptp(scores.mean(axis=0))
    assert shrunk(scores[:1]).tolist() == scores[0].tolist(), "one prompt says nothing of chance"
