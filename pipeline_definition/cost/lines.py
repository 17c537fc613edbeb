"""What a bill is made of: lines with hours, GPU-hours and dollars for each way of buying."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline_definition.cost.prices import PURCHASES, Purchase

Bill = Mapping[Purchase, float | None]
"""Dollars by way of buying; None: the price is not known."""


@dataclass(frozen=True)
class ForecastLine:
    """One line of a forecast."""

    step: str
    what: str
    """Hosts, size, or number of requests."""
    hours: float
    """Of wall time; 0 for what runs beside the steps."""
    gpu_hours: float
    usd: Bill
    rate_kind: str
    """measured, published, derived or assumed."""
    rate: str
    """The rate itself and its source."""
    price: str
    """Where the price comes from."""
    missing: tuple[str, ...] = field(default=())
    """Prices that are not known, such as `spot of ml.p4de.24xlarge`."""


def same_usd(usd: float) -> Bill:
    """Return the bill of something that has one price however the instances are bought."""
    return dict.fromkeys(PURCHASES, usd)


def total_usd(lines: Iterable[ForecastLine], purchase: Purchase) -> float:
    """Return the sum; a line without a price of that kind counts with its on-demand price, so the sum is the most."""
    return sum(_most(line, purchase) for line in lines)


def _most(line: ForecastLine, purchase: Purchase) -> float:
    amounts = (line.usd[purchase], line.usd["on_demand"])
    known = [amount for amount in amounts if amount is not None]
    # Where there is a line at all, its on-demand price is known: an unknown one is an error before.
    return known[0]
