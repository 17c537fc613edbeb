"""The run's dollars as forecast, against its budget, which Train stops at.

Reads a parameter set, a definition, the parameters of one start and the price file; writes nothing.

    sd-pipeline start --set BudgetUsd=40000
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from params.parameter_names import BUDGET_USD, OTHER_STEPS_USD, TRAINING_SAMPLES
from params.phases import Phase, later_key
from params.settings import Settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.cost.forecast import Forecast, forecast
from pipeline_definition.cost.host_hours import host_price_usd, purchase_of
from pipeline_definition.cost.jobs import encoders_step
from pipeline_definition.cost.prices import Purchase
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.planned import Values

# A price that was typed in, rounded to the cent, is the same price.
PRICE_TOLERANCE: Final = 0.005


def job_key(step: str) -> str:
    """Return the key of the parameter set that has a step's job."""
    program, _, number = step.lower().partition("phase")
    return f"{later_key(int(number))}.{program}" if number else f"{program}.job"


def filled_in(settings: Settings, definition: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, str]:
    """Return the changes with what a budget needs: Train's price on another type, the dollars of other steps."""
    filled = dict(changes)
    if settings.local is not None:
        return filled
    for phase in settings.phases:
        instance_type, price = phase.instance_type_name, phase.instance_hour_name
        if instance_type in changes and price not in changes:
            filled[price] = f"{host_price_usd(settings, phase, changes[instance_type]):.10g}"
    if _number(Values(definition, filled), BUDGET_USD) > 0:
        try:
            bill = forecast(settings, definition, filled)
        except CostError:
            return filled
        for phase in settings.phases:
            others = f"{other_steps_usd(bill, purchase_of(settings), phase):.2f}"
            filled.setdefault(phase.named(OTHER_STEPS_USD), others)
    return filled


def other_steps_usd(bill: Forecast, purchase: Purchase, phase: Phase) -> float:
    """Return what everything but one phase's training is forecast to cost."""
    names = (phase.train_name, encoders_step(phase.train_name))
    own = (line.usd[purchase] or 0.0 for line in bill.lines if line.step in names)
    return bill.usd(purchase) - sum(own)


def budget_findings(settings: Settings, definition: Mapping[str, Any], changes: Mapping[str, str]) -> Iterator[Finding]:
    """Check that the forecast keeps within the budget, and that Train can tell what it costs."""
    values = Values(definition, changes)
    budget_usd = _number(values, BUDGET_USD)
    if budget_usd < 0:
        problem = f"{values.text(BUDGET_USD)} dollars are not a budget"
        yield Finding(BUDGET_USD, problem, "set it to 0 for none, or above")
    if settings.local is not None or budget_usd <= 0:
        return
    for phase in settings.phases:
        yield from _price_findings(settings, phase, values)
    try:
        bill = forecast(settings, definition, changes)
    except CostError as error:
        yield Finding(BUDGET_USD, f"the run has no forecast: {error}", f"mend that, or set {BUDGET_USD} to 0")
        return
    purchase, budget = purchase_of(settings), f"the budget of ${budget_usd:,.0f}"
    needed_usd = bill.usd(purchase)
    if needed_usd > budget_usd:
        problem = f"the run is forecast to cost ${needed_usd:,.0f}, which is more than {budget}"
        cheaper = f"lower {TRAINING_SAMPLES}, or look for cheaper hosts with `sd-pipeline plan`"
        yield Finding(BUDGET_USD, problem, f"raise it to {math.ceil(needed_usd)}, {cheaper}")
        return
    for phase in settings.phases:
        others_usd = _number(values, phase.named(OTHER_STEPS_USD))
        if others_usd >= budget_usd:
            problem = f"${others_usd:,.0f} for the other steps leave nothing of {budget} to {phase.train_name}"
            fix = f"leave it out: it is forecast at {other_steps_usd(bill, purchase, phase):.0f}"
            yield Finding(phase.named(OTHER_STEPS_USD), problem, fix)


def _price_findings(settings: Settings, phase: Phase, values: Values) -> Iterator[Finding]:
    parameter = phase.instance_hour_name
    price_usd, name = _number(values, parameter), values.text(phase.instance_type_name)
    listed_usd = host_price_usd(settings, phase, name)
    if price_usd <= 0:
        fix = f"set it to {listed_usd:g}" if listed_usd else "set it to what a host-hour costs"
        yield Finding(parameter, f"{phase.train_name} cannot keep to a budget without the price of {name}", fix)
    elif listed_usd and abs(price_usd / listed_usd - 1) > PRICE_TOLERANCE:
        problem = f"${price_usd:g} is not the list price of {name}, ${listed_usd:g}"
        yield Finding(parameter, problem, "right where you pay another price, else set it to that", blocking=False)


def _number(values: Values, name: str) -> float:
    """Return a parameter as a number; 0 where a definition has none or it is not a number."""
    try:
        return float(values.text(name)) if name in values else 0.0
    except ValueError:
        return 0.0
