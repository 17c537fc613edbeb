"""What the search tried, what each trial cost, and what it chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, Fact, Section, Table
from pipeline_definition.pages.formats import DASH, dollars, duration, figure, number, setting
from pipeline_definition.report.costs import Cost, Prices, job_cost
from pipeline_definition.report.run import Run


@dataclass(frozen=True)
class TuningTrial:
    """One trial."""

    cost: Cost
    is_best: bool
    status: str
    objective: float | None
    seconds: float | None
    hyperparameters: Mapping[str, Any]


def tuning_section(run: Run) -> Section:
    """Return the search."""
    tuning = run.artifacts.tuning or {}
    objective = str((tuning.get("objective") or {}).get("metric") or "objective").replace("_", " ")
    trials = trials_of(tuning, run.prices)
    best = next((trial for trial in trials if trial.is_best), None)
    lead = f"{len(trials)} trials, {str(tuning.get('strategy', '')).lower()} search on {objective}." if trials else ""
    chosen = best.hyperparameters.items() if best else ()
    facts = [Fact(name.replace("_", " "), _value(value), "chosen") for name, value in chosen]
    if best and best.objective is not None:
        facts.append(Fact(objective, figure(best.objective, 4), "of the best trial"))
    drawn, tables = tuple(_charts(run, tuning, trials, objective)), tuple(_tables(run, trials, objective))
    return Section("tuning", "What tuning chose", lead, tuple(facts), drawn, tables)


def trials_of(tuning: Mapping[str, Any], prices: Prices) -> tuple[TuningTrial, ...]:
    """Return the trials in the order in which they began."""
    best = best_name(tuning)
    return tuple(
        TuningTrial(
            cost=job_cost(item, prices),
            is_best=item.get("name") == best,
            status=str(item.get("status") or ""),
            objective=number(item.get("objective")),
            seconds=number(item.get("seconds")),
            hyperparameters=item.get("hyperparameters") or {},
        )
        for item in tuning.get("trials") or ()
    )


def best_name(tuning: Mapping[str, Any]) -> str | None:
    """Return the best trial's name: as SageMaker says, else by the objective."""
    if tuning.get("best_trial"):
        return str(tuning["best_trial"])
    judged = [item for item in tuning.get("trials") or () if number(item.get("objective")) is not None]
    choose = min if lower_is_better(tuning) else max
    return str(choose(judged, key=lambda item: float(item["objective"]))["name"]) if judged else None


def lower_is_better(tuning: Mapping[str, Any]) -> bool:
    """Return whether the objective is minimised."""
    return (tuning.get("objective") or {}).get("type") != "Maximize"


def _charts(run: Run, tuning: Mapping[str, Any], trials: tuple[TuningTrial, ...], objective: str) -> Iterator[Chart]:
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
    svg = charts.trade_off("trials", description, points, best, axis, lower_is_better=lower_is_better(tuning))
    title = f"{objective.capitalize()} over {axis}; the line is the frontier, the large dot the choice"
    yield Chart(title, svg)


def _tables(run: Run, trials: tuple[TuningTrial, ...], objective: str) -> Iterator[Table]:
    if not trials:
        return
    names = tuple(dict.fromkeys(name for trial in trials for name in trial.hyperparameters))
    headers = ("trial", *(name.replace("_", " ") for name in names), objective, "time", "cost")
    rows = []
    for place, trial in enumerate(trials, start=1):
        reached = figure(trial.objective, 4) if trial.objective is not None else trial.status.lower() or DASH
        time = duration(trial.seconds) if trial.seconds is not None else DASH
        cost = dollars(trial.cost.usd) if trial.cost.is_known and trial.cost.instance_hours else DASH
        tried = (_value(trial.hyperparameters.get(name, DASH)) for name in names)
        cost = "nothing" if run.is_local else cost
        rows.append((f"{place} ★" if trial.is_best else str(place), *tried, reached, time, cost))
    yield Table(headers, tuple(rows), frozenset(range(1, len(headers))))


def _value(value: Any) -> str:
    parsed = number(value)
    return setting(parsed) if parsed is not None else str(value)
