"""The page's four figures: how good (FID and CLIP score), how fast, and what it cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from params.layout import CLIP_SCORE, FID
from params.parameter_names import ENDPOINT_HOSTS, instance_count_of, instance_type_of
from pipeline_definition.pages import charts
from pipeline_definition.pages.formats import beside, count, dollars, duration, figure, number
from pipeline_definition.report.costs import total
from pipeline_definition.report.gate import Metric, Threshold, asked_of, metric
from pipeline_definition.report.run import Run

# Sanity rows of metrics.json are named after the metric.
COMPARED = {"_untrained": "untrained", "_real": "real pictures"}
ENDPOINT_PARAMETERS = (instance_type_of(ENDPOINT_HOSTS), instance_count_of(ENDPOINT_HOSTS))


@dataclass(frozen=True)
class Tile:
    """One figure of the headline."""

    label: str
    value: str
    passed: bool | None = None
    """Whether it passes the gate; None where the gate does not ask."""
    notes: tuple[str, ...] = ()
    scale: Markup | None = None


def tiles(run: Run) -> tuple[Tile, ...]:
    """Return the figures that are known."""
    asked = asked_of(run.artifacts)
    known = (
        _quality(run, FID, "FID", asked.get(FID), lower_is_better=True),
        _quality(run, CLIP_SCORE, "CLIP score", asked.get(CLIP_SCORE), lower_is_better=False),
        _speed(run),
        _cost(run),
    )
    return tuple(tile for tile in known if tile is not None)


def _quality(run: Run, name: str, label: str, asked: Threshold | None, lower_is_better: bool) -> Tile | None:
    measured = metric(run.artifacts.metrics, name)
    if measured is None:
        return None
    others = {text: metric(run.artifacts.metrics, name + suffix) for suffix, text in COMPARED.items()}
    compared = {text: other for text, other in others.items() if other is not None}
    marks = [charts.Mark("model", measured.value, measured.low, measured.high)]
    marks += [charts.Mark(text, other.value) for text, other in compared.items()]
    notes = tuple(_quality_notes(measured, asked, compared))
    description = ", ".join((f"{label} {figure(measured.value)}", *notes))
    passed, scale = asked.is_met_by(measured) if asked else None, f"scale-{name}"
    drawing = charts.scale(scale, description, marks, asked.limit if asked else None, lower_is_better)
    return Tile(label, figure(measured.value), passed, notes, drawing)


def _quality_notes(measured: Metric, asked: Threshold | None, compared: Mapping[str, Metric]) -> Iterator[str]:
    if asked:
        yield f"gate: {asked}"
    if measured.interval:
        share = f"{100 * measured.confidence:.0f} % interval " if measured.confidence else ""
        yield f"{share}{measured.interval}"
    for text, other in compared.items():
        yield f"{text}: {beside(other.value, measured.value)}"


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
    """Return a figure of every line of the training log that has it."""
    return [value for entry in run.artifacts.training_log if (value := number(entry.get(name))) is not None]


def _cost(run: Run) -> Tile | None:
    spent = total(step.cost for step in run.steps)
    if run.is_local:
        return Tile("Cost", "nothing", notes=("it ran on this machine",))
    if spent.instance_hours == 0:
        return None
    hours = f"{figure(spent.instance_hours)} instance-hours"
    if spent.usd == 0 and not spent.is_known:
        return Tile("Cost", hours, notes=("no prices were given",))
    unpriced = () if spent.is_known else (f"without {', '.join(sorted(spent.unpriced))}: no price given",)
    return Tile("Cost", dollars(spent.usd), notes=(hours, *unpriced, *_standing(run)))


def _standing(run: Run) -> Iterator[str]:
    """Yield what the endpoint costs an hour: it is billed until it is deleted."""
    kind, instances = (run.artifacts.parameters.get(name) for name in ENDPOINT_PARAMETERS)
    price, instances = run.prices.get(str(kind)), number(instances)
    endpoint = next((step for step in run.steps if step.node.kind == "Endpoint"), None)
    if price is not None and instances and endpoint is not None and endpoint.style == "succeeded":
        yield f"and {dollars(price * instances)} an hour while the endpoint stands"
