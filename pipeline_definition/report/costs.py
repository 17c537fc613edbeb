"""What the steps cost: hosts, hours, and dollars where a price is known.

SageMaker bills each host for the seconds of its job; a step taken from the cache cost nothing in this run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_definition.cost.prices import BY_PLAN
from pipeline_definition.pages.formats import number

SECONDS_PER_HOUR = 3600.0

Prices = Mapping[str, float]
"""Instance type, or it and BY_PLAN, to USD for one instance-hour."""


@dataclass(frozen=True)
class Cost:
    """Instance-hours of one or more jobs."""

    instance_hours: float = 0.0
    usd: float = 0.0
    """Of the hours whose price is known."""
    unpriced: frozenset[str] = frozenset()
    """Instance types without a price."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.instance_hours + other.instance_hours, self.usd + other.usd, self.unpriced | other.unpriced)

    @property
    def is_known(self) -> bool:
        """Whether every hour has a price."""
        return not self.unpriced


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum."""
    return sum(costs, Cost())


def job_cost(job: Mapping[str, Any], prices: Prices) -> Cost:
    """Return what a job or a trial cost."""
    seconds, spent = number(job.get("billable_seconds")) or number(job.get("seconds")) or 0.0, Cost()
    for hosts in job.get("hosts") or ():
        hours = hosts["instance_count"] * seconds / SECONDS_PER_HOUR
        name = hosts["instance_type"] + (BY_PLAN if hosts.get("is_reserved") else "")
        price = prices.get(name)
        spent += Cost(hours, 0.0, frozenset({name})) if price is None else Cost(hours, hours * price)
    return spent


def step_cost(step: Mapping[str, Any], tuning: Mapping[str, Any] | None, prices: Prices) -> Cost:
    """Return what a step of execution.json cost; a tuning step is the sum of its trials."""
    job = step.get("job")
    if not job or step.get("cached"):
        return Cost()
    if job.get("kind") == "TuningJob":
        return total(job_cost(trial, prices) for trial in (tuning or {}).get("trials", []))
    return job_cost({**job, "seconds": job.get("seconds") or step.get("seconds")}, prices)
