"""Lanes are a divisor of the global batch."""

import pytest

from params.divisors import largest_divisor


@pytest.mark.parametrize(
    ("number", "at_most", "expected"), [(2048, 256, 256), (1000, 256, 250), (63, 256, 63), (4099, 256, 1)]
)
def test_lanes_are_the_largest_divisor(number: int, at_most: int, expected: int) -> None:
    assert largest_divisor(number, at_most) == expected
