"""The page's first lines: how the run ended and why where it failed, and four figures.

These are how good the model is (FID and CLIP score), how fast it was trained, and what the run cost.
"""

import statistics
from dataclasses import dataclass
from typing import Any

from params.layout import CLIP_SCORE, FID
from params.parameter_names import ENDPOINT_HOSTS, instance_count_of, instance_type_of
from pipeline_definition.models.gate import MISSED, Threshold, asked_of, gate_lines, metric, warnings
from pipeline_definition.pages.formats import beside, count, dollars, duration, figure, number
from pipeline_definition.report.lineage import registered
from pipeline_definition.report.run import Cost, Run

# Sanity rows of metrics.json are named after the metric.
COMPARED = {"_untrained": "untrained", "_real": "real pictures"}
ENDPOINT_PARAMETERS = (instance_type_of(ENDPOINT_HOSTS), instance_count_of(ENDPOINT_HOSTS))


@dataclass(frozen=True)
class Verdict:
    kind: str
    """passed, failed, stopped or running: the page's seal."""
    title: str
    lead: str = ""


def verdict(run: Run) -> Verdict:
    reservations = warnings(run.artifacts.metrics)
    if run.status == "Succeeded":
        title = "Passed the quality gate" if asked_of(run.artifacts) else "Succeeded"
        lead = " ".join(filter(None, (*reservations, registered(run.artifacts))))
        return Verdict("passed", f"{title}, with a reservation" if reservations else title, lead)
    if run.status in ("Stopped", "Stopping"):
        begun = [step.name for step in run.steps if step.style == "stopped"]
        return Verdict("stopped", f"Stopped at {begun[0]}" if begun else "Stopped")
    if run.status != "Failed":
        return Verdict("running", "Still running")
    step, missed = run.failed_step, [line for line in gate_lines(run.artifacts).values() if line[-1] == MISSED]
    if step is not None and step.node.kind == "Fail" and (missed or reservations):
        return Verdict("failed", "Missed the quality gate", " ".join(reservations))
    return Verdict("failed", f"Failed at {step.name}" if step else "Failed")


def failure(run: Run) -> dict[str, Any] | None:
    """Return why the run did not end well: step, reason and last log lines; None where it did, or nothing is known."""
    if run.status == "Succeeded" or not run.is_finished:
        return None
    step = run.failed_step or next((step for step in run.steps if step.style == "stopped"), None)
    reason = str(step.record.get("failure_reason") or "") if step else ""
    reason = reason or str(run.artifacts.execution.get("failure_reason") or "")
    log = tuple(str(line) for line in (step.record.get("log_tail") or ())) if step else ()
    return {"step": step.name if step else "", "reason": reason, "log": log} if reason or log else None


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    passed: bool | None = None
    """Whether it passes the gate; None where the gate does not ask."""
    notes: tuple[str, ...] = ()


def tiles(run: Run) -> tuple[Tile, ...]:
    asked = asked_of(run.artifacts)
    known = (
        _quality(run, FID, "FID", asked.get(FID)),
        _quality(run, CLIP_SCORE, "CLIP score", asked.get(CLIP_SCORE)),
        _speed(run),
        _cost(run),
    )
    return tuple(tile for tile in known if tile is not None)


def _quality(run: Run, name: str, label: str, asked: Threshold | None) -> Tile | None:
    measured = metric(run.artifacts.metrics, name)
    if measured is None:
        return None
    others = {text: metric(run.artifacts.metrics, name + suffix) for suffix, text in COMPARED.items()}
    compared = {text: other for text, other in others.items() if other is not None}
    notes = [f"gate: {asked}"] if asked else []
    if measured.interval:
        share = f"{100 * measured.confidence:.0f} % interval " if measured.confidence else ""
        notes.append(f"{share}{measured.interval}")
    notes += [f"{text}: {beside(other.value, measured.value)}" for text, other in compared.items()]
    return Tile(label, figure(measured.value), asked.is_met_by(measured) if asked else None, tuple(notes))


def _speed(run: Run) -> Tile | None:
    iterations_per_s = typical(run, "iterations_per_s")
    images_per_s = typical(run, "images_per_s")
    train = run.of_kind("TrainingJob")
    notes = []
    if iterations_per_s is not None and images_per_s is not None:
        notes.append(f"{count(images_per_s)} images/s")
    if train is not None and train.seconds is not None:
        notes.append(f"{train.name} took {train.time}" + (f" on {train.hosts}" if train.hosts else ""))
    if run.seconds is not None:
        notes.append(f"the whole run {duration(run.seconds)}")
    if iterations_per_s is not None:
        return Tile("Speed", f"{figure(iterations_per_s)} it/s", notes=tuple(notes))
    if run.seconds is None:
        return None
    return Tile("Time", duration(run.seconds), notes=tuple(notes[:-1]))


def typical(run: Run, name: str) -> float | None:
    """Return the median of a figure over the training log: the first lines still warm up."""
    values = logged_values(run, name)
    return statistics.median(values) if values else None


def logged_values(run: Run, name: str) -> list[float]:
    return [value for entry in run.artifacts.training_log if (value := number(entry.get(name))) is not None]


def _cost(run: Run) -> Tile | None:
    spent = sum((step.cost for step in run.steps), Cost())
    if run.is_local:
        return Tile("Cost", "nothing", notes=("it ran on this machine",))
    if spent.instance_hours == 0:
        return None
    hours = f"{figure(spent.instance_hours)} instance-hours"
    if spent.usd == 0 and not spent.is_known:
        return Tile("Cost", hours, notes=("no prices were given",))
    notes = [hours] if spent.is_known else [hours, f"without {', '.join(sorted(spent.unpriced))}: no price given"]
    kind, instances = (run.artifacts.parameters.get(name) for name in ENDPOINT_PARAMETERS)
    price, instances = run.prices.get(str(kind)), number(instances)
    if price is not None and instances and run.endpoint is not None:
        # It is billed until it is deleted.
        notes.append(f"and {dollars(price * instances)} an hour while the endpoint stands")
    return Tile("Cost", dollars(spent.usd), notes=tuple(notes))
