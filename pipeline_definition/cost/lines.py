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
    """Of wall time; 0 for what runs in parallel with the steps."""
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
    """Return the sum; a line without a price of that kind counts at its on-demand price: an upper bound."""
    # Every line has an on-demand price: an unknown one is an error before there is a line.
    amounts = (line.usd[purchase] if line.usd[purchase] is not None else line.usd["on_demand"] for line in lines)
    return sum(amount or 0.0 for amount in amounts)
