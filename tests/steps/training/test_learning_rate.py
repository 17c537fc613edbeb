"""The learning rate follows the samples seen, not the steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.programs import TrainArguments
from steps.training.optimizer_step import learning_rate

TOTAL = 64_000


def arguments(**changes: object) -> TrainArguments:
    values = {"learning_rate": 1e-3, "warmup_samples": 6400, "global_batch_size": 64, **changes}
    return TrainArguments.model_validate(values)


def test_warm_up_is_linear_and_its_first_step_learns() -> None:
    rates = [learning_rate(arguments(), seen, TOTAL) for seen in (0, 64, 3168)]
    assert rates == pytest.approx([1e-3 * 32 / 6400, 1e-3 * 96 / 6400, 1e-3 / 2])


def test_constant_stays_and_cosine_ends_near_zero() -> None:
    assert learning_rate(arguments(), TOTAL - 64, TOTAL) == 1e-3
    cosine = arguments(learning_rate_schedule="cosine")
    assert learning_rate(cosine, 6400 - 32, TOTAL) == pytest.approx(1e-3)
    assert learning_rate(cosine, (TOTAL + 6400) // 2 - 32, TOTAL) == pytest.approx(0.5e-3)
    assert 0 < learning_rate(cosine, TOTAL - 64, TOTAL) < 1e-8


@given(st.sampled_from(["constant", "cosine"]), st.integers(0, TOTAL // 1024 - 1), st.sampled_from([2, 4, 16]))
def test_a_batch_cut_into_smaller_ones_has_the_same_rate_on_average(schedule: str, index: int, pieces: int) -> None:
    """On a stretch where the curve is smooth; the rate of a step is that of its middle sample."""
    first = index * 1024
    whole = learning_rate(arguments(learning_rate_schedule=schedule, global_batch_size=1024), first, TOTAL)
    small = arguments(learning_rate_schedule=schedule, global_batch_size=1024 // pieces)
    rates = [learning_rate(small, first + i * 1024 // pieces, TOTAL) for i in range(pieces)]
    assert sum(rates) / pieces == pytest.approx(whole, rel=0.03, abs=2e-6)


def test_without_warm_up_the_peak_comes_at_once() -> None:
    assert learning_rate(arguments(warmup_samples=0), 0, TOTAL) == 1e-3


def test_a_rate_found_for_a_quarter_of_the_batch_is_doubled() -> None:
    found = arguments(learning_rate_batch_size=16)
    assert learning_rate(found, 32_000, TOTAL) == pytest.approx(2e-3)
    assert learning_rate(found, 0, TOTAL) == pytest.approx(2e-3 * 32 / 6400)
    assert learning_rate(arguments(learning_rate_batch_size=64), 32_000, TOTAL) == 1e-3
