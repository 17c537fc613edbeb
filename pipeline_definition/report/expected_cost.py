"""What a run was forecast to cost, kept among its artifacts, so that its page can be made again with the same prices.

Reads a parameter set, the artifacts' definition and parameters, and the price file; writes forecast.json.
"""

from __future__ import annotations

from typing import Any

from params.files import write_json
from params.settings import Settings
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.artifacts.folder import FORECAST_FILE
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.host_hours import purchase_of
from pipeline_definition.cost.lines import ForecastLine
from pipeline_definition.cost.prices import Purchase
from pipeline_definition.cost.training import CostError


def with_forecast(settings: Settings, artifacts: Artifacts) -> Artifacts:
    """Return the artifacts with the forecast of their run; as they are on this machine, or without a definition."""
    if artifacts.execution.get("is_local") or not artifacts.definition:
        return artifacts
    write_json(artifacts.folder / FORECAST_FILE, expected(settings, artifacts))
    return Artifacts.load(artifacts.folder)


def expected(settings: Settings, artifacts: Artifacts) -> dict[str, Any]:
    """Return the forecast of each step and the prices it rests on; where there is none, why."""
    texts = {name: str(value) for name, value in artifacts.parameters.items()}
    try:
        bill = forecast(settings, artifacts.definition, texts)
    except CostError as error:
        return {"problem": str(error)}
    purchase = purchase_of(settings)
    return {
        "region": bill.prices.region,
        "prices_date": bill.prices.date.isoformat(),
        "purchase": purchase,
        "usd": bill.usd(purchase),
        "hours": bill.hours,
        "lines": [_line(line, purchase) for line in bill.lines],
        # Spot jobs are billed for fewer seconds at this price.
        "usd_per_instance_hour": dict(bill.prices.on_demand()),
    }


def _line(line: ForecastLine, purchase: Purchase) -> dict[str, Any]:
    usd = line.usd[purchase]
    return {
        "step": line.step,
        "what": line.what,
        "hours": line.hours,
        "usd": line.usd["on_demand"] if usd is None else usd,
        "rate_kind": line.rate_kind,
    }
