"""How the training went: loss, learning rate, speed, and where the time went."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from params.layout import CHECKPOINT_AGE_S, CHECKPOINT_LAG_S, DATA_S, ENCODER_WAIT_S
from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, Fact, Section, Table, known_facts
from pipeline_definition.pages.formats import DASH, count, duration, figure, number, percent
from pipeline_definition.report import LABELS
from pipeline_definition.report.headline import logged_values, typical
from pipeline_definition.report.run import Run

SEEN = "seen_samples"
# From this ratio of largest to smallest value on, a curve reads better on a logarithmic scale.
LOGARITHMIC_FROM = 20.0


def training_section(run: Run) -> Section:
    title = f"How it was trained{f': {run.phase}' if run.phase else ''}"
    train, seen, lead = run.of_kind("TrainingJob"), points(run, SEEN), ""
    if train is not None and train.seconds is not None and seen:
        lead = f"{count(seen[-1][1])} samples in {train.time}{f' on {train.hosts}' if train.hosts else ''}."
    facts = (*_speed_and_loss(run), *_waits(run))
    losses = tuple((f"{count(seen)}", figure(value, 4)) for seen, value in points(run, "validation_loss"))
    tables = (
        Table(("micro-batch", "measured in", "iterations/s", "images/s"), tuple(_speeds(run)), frozenset({2, 3})),
        Table(("samples seen", "validation loss"), losses, frozenset({0, 1}), "Validation losses"),
    )
    return Section(f"training{run.phase}", title, lead, facts, tuple(_charts(run)), tables)


def points(run: Run, name: str) -> charts.Points:
    """Return a figure of the log over the samples seen."""
    course = []
    for entry in run.artifacts.training_log:
        seen, value = number(entry.get(SEEN)), number(entry.get(name))
        if seen is not None and value is not None:
            course.append((seen, value))
    return sorted(course)


def _speed_and_loss(run: Run) -> Iterator[Fact]:
    medians, lineage = {name: typical(run, name) for name in (*LABELS["speeds"], "mfu")}, run.artifacts.lineage or {}
    yield from known_facts(medians, LABELS["speeds"], figure, "median")
    yield from known_facts(medians, {"mfu": "model FLOPs utilisation"}, percent)
    batches = {"global_batch_size": "global batch", "micro_batch_size": "micro-batch"}
    yield from known_facts(lineage.get("settings") or {}, batches, count)
    yield from known_facts(lineage, {"world_size": "ranks"}, count, str(lineage.get("device") or ""))
    skipped = points(run, "skipped_steps")
    if skipped and skipped[-1][1] > 0:
        yield Fact("steps left out", count(skipped[-1][1]), "their gradients were not finite")
    for name in ("training_loss", "validation_loss"):
        if course := points(run, name):
            yield Fact(name.replace("_", " "), figure(course[-1][1], 4), "last")


def _waits(run: Run) -> Iterator[Fact]:
    """Yield which side waited, where pictures were encoded while training, and whether checkpoints reached S3."""
    waits = {name: [value for _, value in points(run, name)] for name in (DATA_S, ENCODER_WAIT_S)}
    if waits[ENCODER_WAIT_S]:
        trainers_s, encoders_s = (math.fsum(waits[name]) for name in (DATA_S, ENCODER_WAIT_S))
        slower = trainers_s > encoders_s
        yield Fact("trainers waited", duration(trainers_s), "the encoders were slower: add some" if slower else "")
        yield Fact("an encoder waited", duration(encoders_s), "" if slower else "the trainers were slower")
    train = run.of_kind("TrainingJob")
    metrics = ((train.record.get("job") or {}).get("final_metrics") or {}) if train else {}
    age_s, lag_s = number(metrics.get(CHECKPOINT_AGE_S)), number(metrics.get(CHECKPOINT_LAG_S))
    if age_s is not None:
        note = f"✕ a later one waited {duration(lag_s)}" if lag_s else "✓ none was waiting"
        yield Fact("newest checkpoint in S3", f"{duration(age_s)} old", note)


def _charts(run: Run) -> Iterator[Chart]:
    yield from _loss_chart(run)
    for name, title in (("learning_rate", "Learning rate"), ("iterations_per_s", "Iterations/s")):
        course = points(run, name)
        if len(course) > 1:
            ends = f"{title} from {figure(course[0][1])} to {figure(course[-1][1])}"
            svg = charts.curves(f"curve-{name}{run.phase}", ends, [charts.Series(title, course)], from_zero=True)
            yield Chart(title, svg)
    parts = sorted(time_parts(run).items(), key=lambda part: -part[1])
    whole = sum(seconds for _, seconds in parts)
    if whole > 0:
        rows = [(name, value, percent(value / whole)) for name, value in parts]
        description = ", ".join(f"{name} {text}" for name, _, text in rows)
        yield Chart("Where the time of the training went", charts.bars(f"time{run.phase}", description, rows))


def _loss_chart(run: Run) -> Iterator[Chart]:
    names = {name: points(run, name.replace(" ", "_")) for name in ("training loss", "validation loss")}
    series = [charts.Series(name, own, marked=len(own) <= 30) for name, own in names.items() if len(own) > 1]
    if not series:
        return
    values = [value for one in series for _, value in one.points]
    logarithmic = min(values) > 0 and max(values) / min(values) > LOGARITHMIC_FROM
    ends = "; ".join(f"{one.name} from {figure(one.points[0][1])} to {figure(one.points[-1][1])}" for one in series)
    svg = charts.curves(f"curve-loss{run.phase}", ends, series, logarithmic=logarithmic)
    yield Chart("Loss", svg, tuple(one.name for one in series))


def time_parts(run: Run) -> dict[str, float]:
    """Return the seconds that went into each part over the whole log; empty where it does not tell."""
    logged = {label: logged_values(run, key) for key, label in LABELS["time_parts"].items()}
    return {label: math.fsum(values) for label, values in logged.items() if values}


def _speeds(run: Run) -> Iterator[tuple[str, ...]]:
    """Yield how fast each micro-batch size was: the search's trials, and the training itself."""
    trials = (run.artifacts.tuning or {}).get("trials") or ()
    figures = {name: typical(run, name) for name in ("iterations_per_s", "images_per_s")}
    tried = [
        (f"trial {place}", one.get("hyperparameters"), one.get("final_metrics")) for place, one in enumerate(trials, 1)
    ]
    tried.append(("the training", (run.artifacts.lineage or {}).get("settings"), figures))
    for where, settings, measured in sorted(tried, key=lambda entry: _micro_batch(entry[1]) or 0):
        size, speed, images = _micro_batch(settings), *(number((measured or {}).get(name)) for name in figures)
        if size is not None and speed is not None:
            yield count(size), where, figure(speed), count(images) if images is not None else DASH


def _micro_batch(settings: Mapping[str, Any] | None) -> float | None:
    return number((settings or {}).get("micro_batch_size"))
