"""A run as its page shows it: the definition's steps, and the outcome and the cost of each.

SageMaker bills each host for the seconds of its job; a step taken from the cache cost nothing in this run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from params.layout import ENDED_STATUSES, THROUGHPUT_STEP
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.cost.jobs import SECONDS_PER_HOUR
from pipeline_definition.cost.prices import BY_PLAN
from pipeline_definition.pages.formats import duration, moment, number
from pipeline_definition.report.graph import Node, step_graph

STYLES = {
    **{"Succeeded": "succeeded", "Failed": "failed", "Stopped": "stopped"},
    **{"Stopping": "stopped", "Executing": "executing", "Starting": "executing"},
}


Prices = Mapping[str, float]
"""Instance type, or it and BY_PLAN, to USD for one instance-hour."""


@dataclass(frozen=True)
class Cost:
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


@dataclass(frozen=True)
class RunStep:
    node: Node
    record: Mapping[str, Any]
    """Its entry in execution.json; empty where it never began."""
    state: str
    """In a word: succeeded, cached, failed, not reached, not taken."""
    cost: Cost

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def style(self) -> str:
        """Class of its look on the page."""
        if self.record.get("cached") and self.record.get("status") == "Succeeded":
            return "cached"
        return STYLES.get(str(self.record.get("status")), "waiting")

    @property
    def seconds(self) -> float | None:
        return number(self.record.get("seconds"))

    @property
    def time(self) -> str:
        return duration(self.seconds) if self.seconds is not None else ""

    @property
    def hosts(self) -> str:
        """The hosts it ran on, as in `4 × ml.p4d.24xlarge`."""
        hosts = (self.record.get("job") or {}).get("hosts") or ()
        return " + ".join(f"{group['instance_count']} × {group['instance_type']}" for group in hosts)

    @property
    def start(self) -> datetime | None:
        return moment(self.record.get("start"))


@dataclass(frozen=True)
class Run:
    artifacts: Artifacts
    steps: tuple[RunStep, ...]
    prices: Prices
    phase: str = ""
    """For one phase of a run of several: the name of the step that trained it."""

    @property
    def phases(self) -> "tuple[Run, ...]":
        """The run as seen by each of its phases; only itself where there is one phase."""
        formers, trained = self.artifacts.former_phases, [s for s in self._making if s.node.kind == "Training"]
        if not formers or len(trained) <= len(formers):
            return (self,)
        phases = [replace(self, phase=trained[len(formers)].name)]
        for step, former in reversed(list(zip(trained, formers, strict=False))):
            own = {name: getattr(former, name) for name in ("training_log", "lineage", "latents_manifest")}
            artifacts = replace(self.artifacts, **own)
            steps = self.steps[: self.steps.index(step) + 1]
            phases.insert(0, replace(self, artifacts=artifacts, steps=steps, phase=step.name))
        return tuple(phases)

    @property
    def status(self) -> str:
        return str(self.artifacts.execution.get("status", "Unknown"))

    @property
    def is_finished(self) -> bool:
        return self.status in ENDED_STATUSES

    @property
    def is_local(self) -> bool:
        return bool(self.artifacts.execution.get("is_local"))

    @property
    def start(self) -> datetime | None:
        return moment(self.artifacts.execution.get("start"))

    @property
    def seconds(self) -> float | None:
        """From its first step's start to its last step's end."""
        end = moment(self.artifacts.execution.get("end"))
        return (end - self.start).total_seconds() if self.start and end else None

    def of_kind(self, kind: str) -> RunStep | None:
        """Return the last step that ran a job of this kind, such as TrainingJob."""
        steps = (step for step in reversed(self._making) if (step.record.get("job") or {}).get("kind") == kind)
        return next(steps, None)

    @property
    def _making(self) -> list[RunStep]:
        """The steps, except the one that only measures."""
        return [step for step in self.steps if step.name != THROUGHPUT_STEP]

    @property
    def endpoint(self) -> RunStep | None:
        """The step that made an endpoint, where it did."""
        return next((step for step in self.steps if step.node.kind == "Endpoint" and step.style == "succeeded"), None)

    @property
    def failed_step(self) -> RunStep | None:
        return next((step for step in self.steps if step.style == "failed"), None)


def job_cost(job: Mapping[str, Any], prices: Prices) -> Cost:
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
        return sum((job_cost(trial, prices) for trial in (tuning or {}).get("trials", [])), Cost())
    return job_cost({**job, "seconds": job.get("seconds") or step.get("seconds")}, prices)


def run_of(artifacts: Artifacts, prices: Prices | None = None) -> Run:
    """Return the run that left these artifacts, at the prices of its forecast unless others are given."""
    prices = prices or (artifacts.forecast or {}).get("usd_per_instance_hour") or {}
    records = {str(step["name"]): step for step in artifacts.execution.get("steps", ()) if "name" in step}
    # The steps of a run whose definition is missing are drawn one after the other.
    in_a_row = (Node(name, "", name, "", (*records,)[max(0, at - 1) : at], at, 0) for at, name in enumerate(records))
    nodes = step_graph(artifacts.definition) or tuple(in_a_row)
    states = _states(nodes, records, artifacts.execution.get("status") in ENDED_STATUSES)
    steps = (
        RunStep(node, record, states[node.name], step_cost(record, artifacts.tuning, prices))
        for node in nodes
        for record in (records.get(node.name, {}),)
    )
    return Run(artifacts, tuple(steps), prices)


def _states(nodes: Sequence[Node], records: Mapping[str, Mapping[str, Any]], finished: bool) -> dict[str, str]:
    states: dict[str, str] = {}
    status = {name: str(record.get("status", "")) for name, record in records.items()}
    decided = {node.name for node in nodes if node.kind == "Condition" and status.get(node.name) == "Succeeded"}
    for node in sorted(nodes, key=lambda node: node.rank):
        if own := status.get(node.name):
            states[node.name] = "cached" if records[node.name].get("cached") and own == "Succeeded" else own.lower()
        elif not finished:
            states[node.name] = "waiting"
        else:
            passed = any(parent in decided or states[parent] == "not taken" for parent in node.parents)
            states[node.name] = "not taken" if passed else "not reached"
    return states
