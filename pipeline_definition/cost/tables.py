"""A forecast and a plan as tables for a terminal, and as JSON for programs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline_definition.cost.forecast import Forecast
from pipeline_definition.cost.jobs import ForecastLine
from pipeline_definition.cost.prices import PURCHASES
from pipeline_definition.pages.document import Table

UNKNOWN = "unknown"
COLUMNS = ("on demand", "spot", "savings plan")


def usd_text(usd: float | None) -> str:
    """Return whole dollars from $100 on, cents below; a price that is not known is never a zero."""
    if usd is None:
        return UNKNOWN
    return f"${usd:,.0f}" if usd >= 100 else f"${usd:,.2f}"


def hours_text(hours: float) -> str:
    """Return hours, or days from two on; nothing where a line has no time of its own."""
    if hours == 0:
        return ""
    return f"{hours / 24:,.1f} d" if hours >= 48 else f"{hours:,.1f} h"


def forecast_table(forecast: Forecast) -> Table:
    """Return the forecast's lines, its total, and the endpoint by the month."""
    rows = []
    for line in forecast.lines:
        gpu_hours = f"{line.gpu_hours:,.0f}" if line.gpu_hours else ""
        rows.append((line.step, line.what, hours_text(line.hours), gpu_hours, *_amounts(line), line.rate_kind))
    totals = [("<= " if forecast.is_bound(way) else "") + usd_text(forecast.usd(way)) for way in PURCHASES]
    rows.append(("the run", "", hours_text(forecast.hours), f"{forecast.gpu_hours:,.0f}", *totals, ""))
    rows += [(line.step, "each month", "", "", *_amounts(line), "") for line in forecast.monthly]
    return Table(("step", "what", "time", "GPU-hours", *COLUMNS, "rate"), tuple(rows), frozenset({2, 3, 4, 5, 6}))


def _amounts(line: ForecastLine) -> list[str]:
    return [usd_text(line.usd[purchase]) for purchase in PURCHASES]


def forecast_notes(forecast: Forecast) -> list[str]:
    """Return the notes to the table: every rate with its source, the prices' date, what is missing."""
    notes = [f"{line.step} ({line.rate_kind}): {line.rate}" for line in forecast.lines]
    notes.append(f"rows: {forecast.workload.rows:,}, from {forecast.workload.rows_source}")
    notes.append(f"prices: {forecast.prices.region}, {forecast.prices.date}; `sd-pipeline cost prices refresh`")
    notes += sorted({f"price: {line.price}" for line in (*forecast.lines, *forecast.monthly)})
    notes.append("spot: Train alone; savings plan: one year, nothing in advance")
    if forecast.missing:
        names = ", ".join(forecast.missing)
        notes.append(f"not known, reckoned at the on-demand price in a total marked <=: {names}")
    return notes


def forecast_json(forecast: Forecast) -> Mapping[str, Any]:
    return {
        "region": forecast.prices.region,
        "prices_date": forecast.prices.date.isoformat(),
        "workload": asdict(forecast.workload),
        "days": forecast.days,
        "gpu_hours": forecast.gpu_hours,
        "usd": {purchase: forecast.usd(purchase) for purchase in PURCHASES},
        "usd_is_upper_bound": {purchase: forecast.is_bound(purchase) for purchase in PURCHASES},
        "steps": [asdict(line) for line in forecast.lines],
        "monthly": [asdict(line) for line in forecast.monthly],
        "missing": list(forecast.missing),
    }
