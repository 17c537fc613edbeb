from __future__ import annotations

import pytest

from steps.serving.pace import Pace


def test_an_unknown_pace_predicts_nothing() -> None:
    assert Pace().seconds_for(1000.0) == 0.0


def test_the_prediction_is_proportional_to_the_work() -> None:
    pace = Pace()
    pace.record(100.0, 2.0)
    assert pace.seconds_for(50.0) == pytest.approx(1.0)


def test_the_prediction_follows_a_change_of_pace() -> None:
    pace = Pace()
    pace.record(100.0, 1.0)
    for _ in range(60):
        pace.record(100.0, 3.0)
    assert pace.seconds_for(100.0) == pytest.approx(3.0, rel=0.01)
