"""What a training costs is counted over all its jobs, and its part of the budget is a limit."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.stop import SPENT_FILE, Spending


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spending(clock: Clock, folder: Path | None = None, hosts: int = 2, **money: float) -> Spending:
    return Spending(TrainArguments(**({"instance_hour_usd": 36.0} | money)), hosts, folder, clock)


def test_every_host_costs_its_price_for_as_long_as_the_job_runs(clock: Clock) -> None:
    found = spending(clock)
    clock.now_s += 1800
    assert found.usd == pytest.approx(36.0)
    assert found.figures(900.0) == {"cost_usd": pytest.approx(36.0), "remaining_usd": pytest.approx(18.0)}
    assert not found.is_over


def test_without_a_price_nothing_is_said_or_written(clock: Clock, tmp_path: Path) -> None:
    found = spending(clock, tmp_path, instance_hour_usd=0.0)
    clock.now_s += 1e9
    found.note()
    assert found.figures(10.0) == {}
    assert not found.is_over
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_job_took_is_paid_too(clock: Clock, tmp_path: Path) -> None:
    first = spending(clock, tmp_path)
    clock.now_s += 100
    first.note()
    clock.now_s += 1e6
    assert spending(clock, tmp_path).usd == pytest.approx(2.0)


@given(budget=st.floats(1, 1e6), others=st.floats(0, 0.9), hosts=st.integers(1, 64))
def test_the_limit_is_what_the_other_steps_leave(budget: float, others: float, hosts: int) -> None:
    clock = Clock()
    found = spending(clock, None, hosts, budget_usd=budget, other_steps_usd=others * budget)
    seconds = (1 - others) * budget / (hosts * 0.01)
    clock.now_s += 0.999 * seconds
    assert not found.is_over
    clock.now_s += 0.002 * seconds
    assert found.is_over


def test_the_verdict_names_a_budget_that_is_enough(clock: Clock) -> None:
    found = spending(clock, budget_usd=100.0, other_steps_usd=10.0)
    clock.now_s += 4500
    said = found.verdict(1000, 2000, 4500.0)
    assert (
        "training took $90.00 of $90.00 (BudgetUsd 100 less 10 for the other steps) for 1,000 of 2,000 samples" in said
    )
    # 10 for the others, 90 so far, 90 to go and a twentieth of that.
    assert "BudgetUsd=194.50 or more" in said


@pytest.mark.parametrize(
    ("money", "message"),
    [
        ({"budget_usd": 5.0, "instance_hour_usd": 0.0}, "instance_hour_usd is not"),
        ({"budget_usd": 5.0, "other_steps_usd": 5.0}, "raise BudgetUsd"),
    ],
)
def test_a_budget_that_can_hold_nothing_is_refused(clock: Clock, money: dict[str, float], message: str) -> None:
    with pytest.raises(StepError, match=message):
        spending(clock, **money)


def test_a_damaged_file_is_named_and_not_taken_for_nothing(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / SPENT_FILE).write_text("{")
    with pytest.raises(StepError, match=r"spent\.json is damaged"):
        spending(clock, tmp_path)
