"""A plan as words, as tables and as a page with its chart. Reads plan_page.yaml."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from params.tables import table_beside
from pipeline_definition.cost.frontier import PlannedHosts, Way
from pipeline_definition.cost.plan import MORE_DAYS, MORE_USD, Plan
from pipeline_definition.cost.tables import hours_text, usd_text
from pipeline_definition.pages.document import Chart, Document, Section, Table

SHOWN_OPTIONS = 10
CHART_POINTS = 150
WORDS: Final = table_beside(__file__)


def set_table(plans: Mapping[str, Plan]) -> Table:
    rows = []
    for name, plan in plans.items():
        days, usd, _, *trained = _option_row(plan, plan.choice)
        rows.append((name, "yes" if plan.best else "no", days, usd, *trained))
    headers = ("parameter set", "meets both", "days", "dollars", "trained on", "slowest step")
    return Table(headers, tuple(rows), frozenset({2, 3}))


def verdict(plan: Plan) -> str:
    """Return the choice in words, what stands in its way, and what more time or money would buy."""
    choice = plan.choice
    if plan.best:
        said = [f"{_in_words(choice)} meets both"]
        if (second := plan.runner_up) is not None:
            said.append(f"the runner-up is {_in_words(second)}")
    else:
        limits = f"{plan.deadline_days:.3g} days and ${plan.budget_usd:,.0f}"
        said = [f"nothing meets {limits}: nearest is {_in_words(choice)}"]
        within = [option for option in plan.options if option.days <= plan.deadline_days]
        paid = [option for option in plan.options if option.usd <= plan.budget_usd]
        if within:
            said.append(f"within the deadline the cheapest is {_in_words(within[0])}")
        if paid:
            said.append(f"within the budget the fastest is {_in_words(paid[-1])}")
    slowest = plan.bottleneck(choice)
    takes = f"{hours_text(slowest.hours)} on {_on(slowest)}; {slowest.count_parameter} sets its hosts"
    said.append(f"the bottleneck is {slowest.step} ({takes})")
    faster, cheaper = plan.faster_for(MORE_USD), plan.cheaper_in(MORE_DAYS)
    said.append(f"${MORE_USD:,.0f} more would save {hours_text(24 * (choice.days - faster.days)) or 'no time'}")
    saved_usd = choice.usd - cheaper.usd
    said.append(f"one more day would save {usd_text(saved_usd)}" if saved_usd else "more time would save nothing")
    return "; ".join(said) + "."


def start_line(plan: Plan, params: str, values: Mapping[str, Any]) -> str:
    """Return the command that starts the choice; `values` are the parameters without it."""
    wanted = {hosts.type_parameter: hosts.instance_type for hosts in plan.choice.hosts}
    wanted |= {hosts.count_parameter: str(hosts.count) for hosts in plan.choice.hosts}
    changes = [f"--set {name}={value}" for name, value in wanted.items() if str(values.get(name, value)) != value]
    return " ".join(("sd-pipeline start --params", params, *changes))


def set_lines(plan: Plan, is_spot: bool) -> Iterator[str]:
    """Yield what the choice changes that no pipeline parameter can: keys of the parameter set."""
    purchase = plan.choice.trainings[0].purchase
    if is_spot != (purchase == "spot"):
        yield f"in the parameter set: train.spot: {str(purchase == 'spot').lower()}"
    if purchase == "training_plan":
        yield "in the parameter set: train.job.training_plan, and that of each phase: the ARN of your plan"
    tune = next((hosts for hosts in plan.choice.hosts if hosts.step == "Tune"), None)
    if tune and tune.instance_type != plan.choice.trainings[0].instance_type:
        kind = plan.choice.trainings[0].instance_type
        change = f"--set {tune.type_parameter}={kind}"
        yield f"Tune stays on {tune.instance_type}; to have it find the micro-batch of {kind}, {change}"


def step_table(plan: Plan) -> Table:
    headers = ("step", "hosts", "time", "dollars", "scaling", "micro-batch", "rate")
    return Table(headers, tuple(map(_step_row, plan.choice.hosts)), frozenset({2, 3, 4, 5}))


def option_table(plan: Plan) -> Table:
    """Return some of the frontier, evenly spread, with the choice."""
    around = {plan.options.index(plan.choice), *_spread(range(len(plan.options)), SHOWN_OPTIONS)}
    headers = ("days", "dollars", "meets", "trained on", "slowest step")
    return Table(headers, tuple(_option_row(plan, plan.options[at]) for at in sorted(around)), frozenset({0, 1}))


def plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "deadline_days": plan.deadline_days,
        "budget_usd": plan.budget_usd,
        "met": plan.best is not None,
        "choice": _way_json(plan.choice),
        "bottleneck": plan.bottleneck(plan.choice).step,
        "runner_up": _way_json(plan.runner_up) if plan.runner_up else None,
        "frontier": list(map(_way_json, plan.options)),
        "verdict": verdict(plan),
    }


def _way_json(way: Way) -> dict[str, Any]:
    hosts, trainings = ([asdict(one) for one in those] for those in (way.hosts, way.trainings))
    return {"days": way.days, "usd": way.usd, "hosts": hosts, "trainings": trainings}


def plan_document(plan: Plan, name: str, *how: str) -> Document:
    """Return the plan's page; `how`: the lines that start it."""
    from pipeline_definition.pages.charts import trade_off

    choice, described = plan.choice, "Days against dollars of the frontier, with both limits"
    points = [(option.days, option.usd) for option in _spread(plan.options, CHART_POINTS)]
    limits, chosen = (plan.deadline_days, plan.budget_usd), (choice.days, choice.usd)
    drawing = trade_off("plan", described, points, chosen, "days", "dollars", limits=limits, logarithmic=True)
    start = Table(("to start it",), tuple((line,) for line in how), wraps=True)
    steps = Section("choice", "The choice", tables=(step_table(plan), start), is_wide=True)
    chart, table = Chart(WORDS["chart"], drawing), option_table(plan)
    options = Section("options", "Options", " ".join(WORDS["notes"]), charts=(chart,), tables=(table,), is_wide=True)
    return Document(
        eyebrow=(f"{name}: {plan.deadline_days:.3g} days, ${plan.budget_usd:,.0f}",),
        title="A plan that meets both" if plan.best else "No plan meets both",
        lead=verdict(plan),
        sections=(steps, options),
    )


def _in_words(option: Way) -> str:
    trained = " and ".join(dict.fromkeys(map(_on, option.trainings)))
    return f"{trained} ({option.days:.1f} days, ${option.usd:,.0f})"


def _on(hosts: PlannedHosts) -> str:
    way = "" if hosts.purchase == "on_demand" else f" {hosts.purchase.replace('_', ' ')}"
    return f"{hosts.count} x {hosts.instance_type}{way}"


def _step_row(hosts: PlannedHosts) -> tuple[str, ...]:
    return (
        hosts.step,
        _on(hosts),
        hours_text(hosts.hours),
        f"{hosts.usd:,.0f}",
        f"{hosts.efficiency:.0%}" if hosts.micro_batch_size else "",
        str(hosts.micro_batch_size or ""),
        hosts.rate_kind,
    )


def _option_row(plan: Plan, option: Way) -> tuple[str, ...]:
    meets = "the choice" if option == plan.choice else "yes" if plan.meets(option) else "no"
    trained = ", ".join(dict.fromkeys(map(_on, option.trainings)))
    return (f"{option.days:.1f}", f"{option.usd:,.0f}", meets, trained, plan.bottleneck(option).step)


def _spread(items: Sequence[Any], most: int) -> Iterable[Any]:
    """Return at most so many of the items, evenly spread, both ends included."""
    count = min(len(items), most)
    return [items[round(at * (len(items) - 1) / max(count - 1, 1))] for at in range(count)]
