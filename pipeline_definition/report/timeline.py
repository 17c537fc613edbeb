"""The steps over time: when each ran, how long, on what, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline_definition.pages.formats import dollars, duration, figure
from pipeline_definition.report.costs import total
from pipeline_definition.report.run import Run, RunStep


@dataclass(frozen=True)
class TimelineRow:
    """One step."""

    step: RunStep
    from_percent: float
    width_percent: float
    """Where its bar lies between the run's start and end."""
    time: str
    """How long it ran, or why it did not."""
    cost: str
    note: str
    """Attempts, where there was more than one."""


def rows(run: Run) -> tuple[TimelineRow, ...]:
    """Return the steps of the definition in order."""
    return tuple(_row(run, step) for step in run.steps)


def summary(run: Run) -> str:
    """Return how long the whole run took and what it cost, in words."""
    took = f"{duration(run.seconds)} in all. " if run.seconds is not None else ""
    return took + _total_cost(run)


def _total_cost(run: Run) -> str:
    if run.is_local:
        return "On this machine: nothing to pay."
    spent = total(step.cost for step in run.steps)
    if not spent.instance_hours:
        return ""
    hours = f"{figure(spent.instance_hours)} instance-hours"
    if not spent.is_known:
        missing = f"no price given for {', '.join(sorted(spent.unpriced))}"
        return f"{hours}: {dollars(spent.usd)}, with {missing}." if spent.usd else f"{hours}; {missing}."
    return f"{hours}: {dollars(spent.usd)}."


def _row(run: Run, step: RunStep) -> TimelineRow:
    start, width = _bar(run, step)
    attempts = int(step.record.get("attempts") or 1)
    time = step.time if step.time and step.style != "cached" else step.state
    return TimelineRow(step, start, width, time, _cost(run, step), f"{attempts} attempts" if attempts > 1 else "")


def _bar(run: Run, step: RunStep) -> tuple[float, float]:
    if run.start is None or not run.seconds or step.start is None or step.seconds is None:
        return 0.0, 0.0
    start = min(1.0, max(0.0, (step.start - run.start).total_seconds() / run.seconds))
    return round(100 * start, 2), round(100 * min(1.0 - start, step.seconds / run.seconds), 2)


def _cost(run: Run, step: RunStep) -> str:
    if run.is_local or not step.cost.instance_hours:
        return ""
    return dollars(step.cost.usd) if step.cost.is_known else f"{figure(step.cost.instance_hours)} h"
