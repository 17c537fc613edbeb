"""Numbers, times and sizes as people read them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.pages import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.1124, "9.11"),
        (55.53, "55.5"),
        (0.92, "0.920"),
        (1234.6, "1,235"),
        (0.0, "0"),
        (1.2e-6, "1.20e-06"),
        (-3.0, "-3.00"),
    ],
)
def test_figures_keep_three_digits(value: float, text: str) -> None:
    assert formats.figure(value) == text


@pytest.mark.parametrize(("value", "text"), [(25.0, "25"), (0.6, "0.6"), (0.00134, "0.00134"), (1e-5, "1.000e-05")])
def test_settings_are_said_as_short_as_they_can_be(value: float, text: str) -> None:
    assert formats.setting(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.24, "0.2 s"),
        (43, "43 s"),
        (754, "12 min 34 s"),
        (11100, "3 h 05 min"),
        (187_200, "2 d 4 h"),
        (59.7, "1 min 00 s"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"), [(39511.4, "$39,511"), (39.5, "$39.50"), (0.004, "<$0.01"), (0.0, "$0.00"), (999.99, "$999.99")]
)
def test_dollars(usd: float, text: str) -> None:
    assert formats.dollars(usd) == text


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.text() | st.none() | st.booleans())
def test_only_finite_numbers_count_as_numbers(value: Any) -> None:
    found = formats.number(value)
    assert found is None or abs(found) < float("inf")
    assert found is None or formats.figure(found)


@given(st.floats(0, 1e15), st.sampled_from(["size", "short_count", "percent", "duration", "dollars", "count", "plain"]))
def test_every_number_has_a_text(value: float, name: str) -> None:
    assert getattr(formats, name)(value)
