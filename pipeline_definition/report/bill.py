"""What the run cost, step by step, against its forecast.

The forecast is kept among the run's artifacts, so that its page can be made again with the same prices. Reads a
parameter set, the artifacts' definition and parameters, and the price file; writes forecast.json.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from params.files import write_json
from params.settings import Settings
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.artifacts.folder import FORECAST_FILE
from pipeline_definition.cost.corrections import PLAUSIBLE, Correction
from pipeline_definition.cost.forecast import forecast as forecast_of
from pipeline_definition.cost.host_hours import purchase_of
from pipeline_definition.cost.jobs import SECONDS_PER_HOUR
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.planned import Values, planned_jobs
from pipeline_definition.pages.document import Fact, Section, Table, known_facts
from pipeline_definition.pages.formats import DASH, dollars, duration, number, percent
from pipeline_definition.report.run import Run


@dataclass(frozen=True)
class BillLine:
    name: str
    what: str
    expected_hours: float | None
    hours: float | None
    expected_usd: float | None
    usd: float | None


def with_forecast(settings: Settings, artifacts: Artifacts) -> Artifacts:
    """Return the artifacts with their run's forecast; unchanged for a local run, or without a definition."""
    if artifacts.execution.get("is_local") or not artifacts.definition:
        return artifacts
    write_json(artifacts.folder / FORECAST_FILE, expected_cost(settings, artifacts))
    return Artifacts.load(artifacts.folder)


def expected_cost(settings: Settings, artifacts: Artifacts) -> dict[str, Any]:
    """Return the forecast of each step with its prices, or the reason why there is none."""
    texts = {name: str(value) for name, value in artifacts.parameters.items()}
    try:
        predicted = forecast_of(settings, artifacts.definition, texts)
    except CostError as error:
        return {"problem": str(error)}
    purchase = purchase_of(settings)
    return {
        "region": predicted.prices.region,
        "prices_date": predicted.prices.date.isoformat(),
        "purchase": purchase,
        "usd": predicted.usd(purchase),
        "hours": predicted.hours,
        "lines": [
            {
                **{name: getattr(line, name) for name in ("step", "what", "hours", "rate_kind", "hours_factor")},
                "usd": line.usd["on_demand"] if line.usd[purchase] is None else line.usd[purchase],
            }
            for line in predicted.lines
        ],
        # Spot jobs are billed for fewer seconds at this price.
        "usd_per_instance_hour": dict(predicted.prices.by_hosts()),
    }


def cost_section(run: Run) -> Section:
    expected = run.artifacts.forecast or {}
    if run.is_local or not expected:
        return Section("cost", "What it cost")
    rows = tuple(bill(run))
    facts = [*known_facts(expected, {"usd": "forecast of the whole run"}, dollars, "storage and network included")]
    if spent := [row.usd for row in rows if row.usd is not None]:
        facts.append(Fact("billed for jobs", dollars(sum(spent)), "seconds of their hosts"))
    if expected.get("prices_date"):
        bought = str(expected.get("purchase") or "").replace("_", " ")
        facts.append(Fact("prices of", str(expected["prices_date"]), f"{expected.get('region') or ''}, {bought}"))
    tables = (bill_table(rows),) if rows else ()
    return Section("cost", "What it cost", _lead(expected, rows), tuple(facts), tables=tables)


def bill(run: Run) -> Iterator[BillLine]:
    """Yield the steps that ran a job or were forecast to, then the other lines of the forecast."""
    expected = {str(line.get("step")): line for line in (run.artifacts.forecast or {}).get("lines") or ()}
    for step in run.steps:
        line = expected.pop(step.name, {})
        if not line and not step.cost.instance_hours:
            continue
        ran, cached = step.style in ("succeeded", "failed", "stopped"), step.style == "cached"
        what = "from the cache" if cached else step.hosts or str(line.get("what") or "")
        hours = step.seconds / SECONDS_PER_HOUR if ran and step.seconds is not None else None
        usd = 0.0 if cached else step.cost.usd if ran and step.cost.is_known else None
        yield BillLine(step.name, what, number(line.get("hours")), hours, number(line.get("usd")), usd)
    for name, line in expected.items():
        yield BillLine(name, str(line.get("what") or ""), None, None, number(line.get("usd")), None)


def corrections(run: Run, settings: Settings, today: date) -> Iterator[Correction]:
    """Yield what the run's finished jobs showed about the hours that a forecast says.

    Raises CostError for a job that took a twentieth of its forecast, or twenty times as long: it did other work.
    """
    artifacts, lines = run.artifacts, {line["step"]: line for line in (run.artifacts.forecast or {}).get("lines", ())}
    planned = planned_jobs(artifacts.definition, Values(artifacts.definition, artifacts.parameters))
    programs = {job.step: job.program for job in planned if not job.choices and job.program != "stream"}
    for step in run.steps:
        line, hosts = lines.get(step.name) or {}, (step.record.get("job") or {}).get("hosts") or ()
        if step.style != "succeeded" or not (line.get("hours") and hosts and step.seconds and step.name in programs):
            continue
        said_hours = line["hours"] / line.get("hours_factor", 1.0)
        factor = step.seconds / SECONDS_PER_HOUR / said_hours
        if not PLAUSIBLE[0] <= factor <= PLAUSIBLE[1]:
            raise CostError(f"{step.name} took {factor:.2g} times its forecast: look at its rows and samples first")
        work = (programs[step.name], hosts[0]["instance_type"], settings.data.model)
        fields = dict(zip(("program", "instance_type", "model"), work, strict=True))
        yield Correction(**fields, hours_factor=factor, run=str(artifacts.execution.get("id")), date=today)


def _lead(forecast: Mapping[str, Any], rows: tuple[BillLine, ...]) -> str:
    if forecast.get("problem"):
        return f"There is no forecast: {forecast['problem']}."
    compared = [row for row in rows if row.expected_usd is not None and row.usd is not None]
    expected = sum(row.expected_usd or 0.0 for row in compared)
    billed = sum(row.usd or 0.0 for row in compared)
    if not expected:
        return ""
    cost = f"cost {dollars(billed)}: {percent(billed / expected)} of it"
    return f"Its jobs were forecast at {dollars(expected)} and {cost}."


def bill_table(rows: tuple[BillLine, ...]) -> Table:
    """Return the bill beside its forecast, with the sum of what is known."""
    headers = ("step", "hosts", "time, forecast", "time", "dollars, forecast", "dollars")
    known = ([row.expected_hours, row.hours, row.expected_usd, row.usd] for row in rows)
    cells = []
    for row in (*rows, BillLine("all", "", *(sum(filter(None, column)) for column in zip(*known, strict=True)))):
        hours = [DASH if own is None else duration(own * SECONDS_PER_HOUR) for own in (row.expected_hours, row.hours)]
        usd = [DASH if own is None else dollars(own) for own in (row.expected_usd, row.usd)]
        cells.append((row.name, row.what, *hours, *usd))
    return Table(headers, tuple(cells), frozenset({2, 3, 4, 5}))
