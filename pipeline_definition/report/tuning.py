"""What the search tried, what each trial cost, and what it chose."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, Fact, Section, Table
from pipeline_definition.pages.formats import DASH, dollars, duration, figure, number, setting
from pipeline_definition.report.run import Cost, Run, job_cost


@dataclass(frozen=True)
class TuningTrial:
    record: Mapping[str, Any]
    """Its entry in tuning.json."""
    cost: Cost
    is_best: bool
    objective: float | None
    seconds: float | None


def tuning_section(run: Run) -> Section:
    tuning = run.artifacts.tuning or {}
    objective = str((tuning.get("objective") or {}).get("metric") or "objective").replace("_", " ")
    trials, facts = [], []
    for item in tuning.get("trials") or ():
        reached = number(item.get("objective"))
        is_best = item.get("name") == best_name(tuning)
        trials.append(TuningTrial(item, job_cost(item, run.prices), is_best, reached, number(item.get("seconds"))))
        if is_best:
            chosen = (item.get("hyperparameters") or {}).items()
            facts = [Fact(name.replace("_", " "), _value(value), "chosen") for name, value in chosen]
            facts += [] if reached is None else [Fact(objective, figure(reached, 4), "of the best trial")]
    lead = f"{len(trials)} trials, {str(tuning.get('strategy', '')).lower()} search on {objective}." if trials else ""
    tables = (_table(run, trials, objective),) if trials else ()
    return Section("tuning", "What tuning chose", lead, tuple(facts), tuple(_charts(run, trials, objective)), tables)


def best_name(tuning: Mapping[str, Any]) -> str | None:
    """Return the best trial's name: as SageMaker says, else by the objective."""
    if tuning.get("best_trial"):
        return str(tuning["best_trial"])
    judged = [item for item in tuning.get("trials") or () if number(item.get("objective")) is not None]
    choose = min if lower_is_better(tuning) else max
    return str(choose(judged, key=lambda item: float(item["objective"]))["name"]) if judged else None


def lower_is_better(tuning: Mapping[str, Any]) -> bool:
    return (tuning.get("objective") or {}).get("type") != "Maximize"


def _charts(run: Run, trials: Sequence[TuningTrial], objective: str) -> Iterator[Chart]:
    in_dollars = not run.is_local and all(trial.cost.is_known for trial in trials)
    reached = [
        (cost, trial.objective, trial.is_best)
        for trial in trials
        if (cost := trial.cost.usd if in_dollars else trial.seconds) is not None and trial.objective is not None
    ]
    if len(reached) < 2:
        return
    axis = "US dollars" if in_dollars else "seconds"
    points = [(cost, value) for cost, value, _ in reached]
    best = next(((cost, value) for cost, value, is_best in reached if is_best), None)
    description = f"{objective} of {len(points)} trials over {axis}"
    is_minimised = lower_is_better(run.artifacts.tuning or {})
    svg = charts.trade_off("trials", description, points, best, axis, lower_is_better=is_minimised)
    title = f"{objective.capitalize()} over {axis}; the line is the frontier, the large dot the choice"
    yield Chart(title, svg)


def _table(run: Run, trials: Sequence[TuningTrial], objective: str) -> Table:
    tried = [trial.record.get("hyperparameters") or {} for trial in trials]
    names = tuple(dict.fromkeys(name for own in tried for name in own))
    headers = ("trial", *(name.replace("_", " ") for name in names), objective, "time", "cost")
    rows = []
    for place, (trial, own) in enumerate(zip(trials, tried, strict=True), start=1):
        status = str(trial.record.get("status") or "").lower() or DASH
        reached = figure(trial.objective, 4) if trial.objective is not None else status
        time = duration(trial.seconds) if trial.seconds is not None else DASH
        cost = dollars(trial.cost.usd) if trial.cost.is_known and trial.cost.instance_hours else DASH
        values = (_value(own.get(name, DASH)) for name in names)
        cost = "nothing" if run.is_local else cost
        rows.append((f"{place} ★" if trial.is_best else str(place), *values, reached, time, cost))
    return Table(headers, tuple(rows), frozenset(range(1, len(headers))))


def _value(value: Any) -> str:
    parsed = number(value)
    return setting(parsed) if parsed is not None else str(value)
