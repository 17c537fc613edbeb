"""Divisors: a global batch is dealt out evenly, to ranks and to lanes of the samples' order."""


def largest_divisor(number: int, at_most: int) -> int:
    """Return the largest divisor of `number` that is not above `at_most`."""
    return next(divisor for divisor in range(min(number, at_most), 0, -1) if number % divisor == 0)
