"""The run's budget: refused at the start where the forecast exceeds it, and told to Train, which stops at it.

Reads a parameter set, a definition, the parameters of one start and the price file; writes nothing.

    sd-pipeline start --set BudgetUsd=40000
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from params.phases import Phase
from params.settings import Settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.cost.forecast import Forecast, forecast
from pipeline_definition.cost.jobs import encoders_step
from pipeline_definition.cost.prices import Purchase, load_prices
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.planned import Values

BUDGET: Final = "BudgetUsd"
# The phase's suffix follows, or stands inside.
OTHER_STEPS: Final = "OtherStepsUsd{suffix}"
PRICE: Final = "Training{suffix}InstanceHourUsd"
INSTANCE_TYPE: Final = "Training{suffix}InstanceType"
# A price that was typed in, rounded to the cent, is the same price.
PRICE_TOLERANCE: Final = 0.005


def purchase_of(settings: Settings) -> Purchase:
    """Return how Train's hosts are bought."""
    return "spot" if settings.train.spot else "on_demand"


def training_price_usd(settings: Settings, phase: Phase) -> float:
    """Return the dollars of one host-hour of a phase: the parameter set's own, else the price file's; 0: not known."""
    if phase.train.instance_hour_usd or settings.local is not None:
        return phase.train.instance_hour_usd
    return _with_encoders_usd(settings, phase, _list_price_usd(settings, phase.train.job.instance_type))


def filled_in(settings: Settings, definition: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, str]:
    """Return the changes of a start with what the budget needs to know and the operator did not say.

    That is the price of another instance type of Train, and with a budget the dollars of the other steps. What cannot
    be forecast is left to `budget_findings` to refuse.
    """
    filled = dict(changes)
    if settings.local is not None:
        return filled
    for phase in settings.phases:
        instance_type, price = _named(INSTANCE_TYPE, phase), _named(PRICE, phase)
        if instance_type in changes and price not in changes:
            filled[price] = f"{_list_price_usd(settings, changes[instance_type]):.10g}"
    if _number(Values(definition, filled), BUDGET) > 0:
        try:
            bill = forecast(settings, definition, filled)
        except CostError:
            return filled
        for phase in settings.phases:
            others = f"{other_steps_usd(bill, purchase_of(settings), phase):.2f}"
            filled.setdefault(_named(OTHER_STEPS, phase), others)
    return filled


def other_steps_usd(bill: Forecast, purchase: Purchase, phase: Phase) -> float:
    """Return what everything but one phase's training is forecast to cost."""
    names = (phase.train_name, encoders_step(phase.train_name))
    own = (line.usd[purchase] or 0.0 for line in bill.lines if line.step in names)
    return bill.usd(purchase) - sum(own)


def budget_findings(settings: Settings, definition: Mapping[str, Any], changes: Mapping[str, str]) -> Iterator[Finding]:
    """Check that the forecast keeps within the budget, and that Train can tell what it costs."""
    values = Values(definition, changes)
    budget_usd = _number(values, BUDGET)
    if budget_usd < 0:
        yield Finding(BUDGET, f"{values.text(BUDGET)} dollars are no budget", "set it to 0 for none, or above")
    if settings.local is not None or budget_usd <= 0:
        return
    for phase in settings.phases:
        yield from _price_findings(settings, phase, values)
    try:
        bill = forecast(settings, definition, changes)
    except CostError as error:
        yield Finding(BUDGET, f"the run has no forecast: {error}", f"mend that, or set {BUDGET} to 0")
        return
    for phase in settings.phases:
        yield from _forecast_findings(bill, purchase_of(settings), phase, values, budget_usd)


def _forecast_findings(
    bill: Forecast, purchase: Purchase, phase: Phase, values: Values, budget_usd: float
) -> Iterator[Finding]:
    name = _named(OTHER_STEPS, phase)
    needed_usd, others_usd = bill.usd(purchase), _number(values, name)
    if needed_usd > budget_usd:
        yield Finding(
            BUDGET,
            f"the run is forecast to cost ${needed_usd:,.0f}, which is more than the budget of ${budget_usd:,.0f}",
            f"raise it to {math.ceil(needed_usd)}, lower TrainingSamples, or look for cheaper hosts with"
            " `sd-pipeline plan`",
        )
    elif others_usd >= budget_usd:
        yield Finding(
            name,
            f"${others_usd:,.0f} for the other steps leave nothing of the budget of ${budget_usd:,.0f} to"
            f" {phase.train_name}",
            f"leave it out: it is forecast at {other_steps_usd(bill, purchase, phase):.0f}",
        )


def _price_findings(settings: Settings, phase: Phase, values: Values) -> Iterator[Finding]:
    parameter = _named(PRICE, phase)
    price_usd, name = _number(values, parameter), values.text(_named(INSTANCE_TYPE, phase))
    listed_usd = _list_price_usd(settings, name)
    if price_usd <= 0:
        fix = f"set it to {listed_usd:g}" if listed_usd else "set it to what a host-hour costs"
        yield Finding(parameter, f"{phase.train_name} cannot keep to a budget without the price of {name}", fix)
    elif listed_usd and abs(price_usd / listed_usd - 1) > PRICE_TOLERANCE:
        problem = f"${price_usd:g} is not the list price of {name}, ${listed_usd:g}"
        yield Finding(parameter, problem, "right where you pay another price, else set it to that", blocking=False)


def _with_encoders_usd(settings: Settings, phase: Phase, price_usd: float) -> float:
    """Return a training host's price with its share of the encoders in the same job, as the parameter set has them."""
    if settings.encoders is None or not price_usd:
        return price_usd
    encoders_usd = settings.encoders.instance_count * _list_price_usd(settings, settings.encoders.instance_type)
    return price_usd + encoders_usd / phase.train.job.instance_count


def _named(name: str, phase: Phase) -> str:
    return name.format(suffix=phase.suffix)


def _list_price_usd(settings: Settings, instance_type: str) -> float:
    """Return the price file's price in the run's region, on demand where no spot price is known; 0: none."""
    prices = load_prices()
    if prices.region != settings.account.region:
        return 0.0
    price = prices.find(instance_type, purchase_of(settings)) or prices.find(instance_type, "on_demand")
    return price.usd if price else 0.0


def _number(values: Values, name: str) -> float:
    """Return a parameter as a number; 0 where a definition has none or it is none."""
    try:
        return float(values.text(name)) if name in values else 0.0
    except ValueError:
        return 0.0
