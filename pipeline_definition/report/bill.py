"""What the run cost, step by step, against what it was forecast to cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, Fact, Section, Table
from pipeline_definition.pages.formats import DASH, dollars, duration, number, percent
from pipeline_definition.report.costs import SECONDS_PER_HOUR
from pipeline_definition.report.run import Run

KEYS = ("forecast", "billed")


@dataclass(frozen=True)
class BillLine:
    """One line of the bill; None where nothing is known."""

    name: str
    what: str
    expected_hours: float | None
    hours: float | None
    expected_usd: float | None
    usd: float | None

    @property
    def is_comparable(self) -> bool:
        """Whether there are dollars on both sides."""
        return self.expected_usd is not None and self.usd is not None


def cost_section(run: Run) -> Section:
    """Return the bill of a run on AWS; nothing for one on this machine."""
    forecast = run.artifacts.forecast or {}
    if run.is_local or not forecast:
        return Section("cost", "What it cost")
    rows = tuple(bill(run))
    return Section(
        anchor="cost",
        title="What it cost",
        lead=_lead(forecast, rows),
        facts=tuple(_facts(forecast, rows)),
        charts=tuple(_charts(rows)),
        tables=(_table(rows),) if rows else (),
    )


def bill(run: Run) -> Iterator[BillLine]:
    """Yield the steps that ran a job or were forecast to, then what stands beside them."""
    expected = {str(line.get("step")): line for line in (run.artifacts.forecast or {}).get("lines") or ()}
    for step in run.steps:
        line = expected.pop(step.name, {})
        if not line and not step.cost.instance_hours:
            continue
        ran = step.style in ("succeeded", "failed", "stopped")
        usd = 0.0 if step.style == "cached" else step.cost.usd if ran and step.cost.is_known else None
        yield BillLine(
            step.name,
            "from the cache" if step.style == "cached" else step.hosts or str(line.get("what") or ""),
            number(line.get("hours")),
            step.seconds / SECONDS_PER_HOUR if ran and step.seconds is not None else None,
            number(line.get("usd")),
            usd,
        )
    for name, line in expected.items():
        yield BillLine(name, str(line.get("what") or ""), None, None, number(line.get("usd")), None)


def _lead(forecast: Mapping[str, Any], rows: tuple[BillLine, ...]) -> str:
    if forecast.get("problem"):
        return f"There is no forecast: {forecast['problem']}."
    compared = [row for row in rows if row.is_comparable]
    expected = sum(row.expected_usd or 0.0 for row in compared)
    billed = sum(row.usd or 0.0 for row in compared)
    if not compared or not expected:
        return ""
    return (
        f"Its jobs were forecast at {dollars(expected)} and cost {dollars(billed)}: {percent(billed / expected)} of it."
    )


def _facts(forecast: Mapping[str, Any], rows: tuple[BillLine, ...]) -> Iterator[Fact]:
    whole, spent = number(forecast.get("usd")), [row.usd for row in rows if row.usd is not None]
    if whole is not None:
        yield Fact("forecast of the whole run", dollars(whole), "storage and network included")
    if spent:
        yield Fact("billed for jobs", dollars(sum(spent)), "seconds of their hosts")
    if forecast.get("prices_date"):
        bought = str(forecast.get("purchase") or "").replace("_", " ")
        yield Fact("prices of", str(forecast["prices_date"]), f"{forecast.get('region') or ''}, {bought}")


def _charts(rows: tuple[BillLine, ...]) -> Iterator[Chart]:
    shown = [
        (row.name, [(usd or 0.0, dollars(usd or 0.0)) for usd in (row.expected_usd, row.usd)])
        for row in rows
        if row.is_comparable
    ]
    if len(shown) < 2 or not any(usd for _, both in shown for usd, _ in both):
        return
    description = "; ".join(f"{name}: forecast {before}, billed {after}" for name, [(_, before), (_, after)] in shown)
    yield Chart("Dollars by step", charts.bars("bill", description, shown), KEYS)


def _table(rows: tuple[BillLine, ...]) -> Table:
    spent = total_row(rows)
    return Table(
        ("step", "hosts", "time, forecast", "time", "dollars, forecast", "dollars"),
        tuple(_cells(row) for row in (*rows, spent)),
        frozenset({2, 3, 4, 5}),
    )


def total_row(rows: tuple[BillLine, ...]) -> BillLine:
    """Return the sums of what is known."""
    return BillLine(
        "all",
        "",
        sum(row.expected_hours or 0.0 for row in rows),
        sum(row.hours or 0.0 for row in rows),
        sum(row.expected_usd or 0.0 for row in rows),
        sum(row.usd or 0.0 for row in rows),
    )


def _cells(row: BillLine) -> tuple[str, ...]:
    times = (
        duration(hours * SECONDS_PER_HOUR) if hours is not None else DASH for hours in (row.expected_hours, row.hours)
    )
    amounts = (dollars(usd) if usd is not None else DASH for usd in (row.expected_usd, row.usd))
    return (row.name, row.what, *times, *amounts)
