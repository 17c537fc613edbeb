"""What an execution has cost up to now: the seconds of its steps' hosts at the price file's prices.

Reads the definition and the parameters of an execution, and the price file; writes nothing. On this machine there is
nothing to pay. It is an estimate: SageMaker bills from when the hosts are ready, and a tuner's trials one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline_definition.cost.prices import load_prices
from pipeline_definition.jobs.planned import PlannedJob, Values, planned_jobs
from pipeline_definition.runs.executions import Execution, ExecutionStep
from pipeline_definition.session import Target

SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True)
class RunningCost:
    """Dollars for an hour of each step's hosts."""

    usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    """By step; a step without a job, or without a price, is not in it."""

    @classmethod
    def of(cls, target: Target, definition: Mapping[str, Any], parameters: Mapping[str, str]) -> RunningCost:
        """Return the prices of an execution's steps: none on this machine, or in a region without known prices."""
        if target.is_local:
            return cls()
        jobs = [job for job in planned_jobs(definition, Values(definition, parameters)) if job.program != "serve"]
        known = {job.step: (job, _usd_per_hour(target, job)) for job in jobs}
        return cls({step: price * job.count * job.parallel for step, (job, price) in known.items() if price})

    def step_usd(self, step: ExecutionStep) -> float | None:
        """Return what a step has cost; None where that is not known, or nothing was run."""
        price = self.usd_per_hour.get(step.name)
        if price is None or step.seconds is None:
            return None
        return 0.0 if step.cached else price * step.seconds / SECONDS_PER_HOUR

    def usd(self, execution: Execution) -> float | None:
        """Return what the steps have cost together; None where no price is known."""
        return sum(self.step_usd(step) or 0.0 for step in execution.steps) if self.usd_per_hour else None


def _usd_per_hour(target: Target, job: PlannedJob) -> float:
    return load_prices().in_region(target.region, job.instance.name, "spot" if job.spot else "on_demand")
