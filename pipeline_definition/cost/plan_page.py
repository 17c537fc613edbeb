"""A plan as tables and as a page with its chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table as RichTable

from pipeline_definition.cost.plan import Option, Plan
from pipeline_definition.pages.document import Chart, Document, Section, Table

HEADERS = (
    *("hosts", "GPUs", "bought", "days", "dollars", "training days", "training dollars", "scaling", "rate"),
    *("micro-batch", "meets"),
)
CHART_TITLE = "Days against dollars; dashed are the limits, the line is the frontier, the large dot the choice"
NUMERIC = frozenset({1, 3, 4, 5, 6, 7, 9})
NOTES = (
    "Scaling: with the global batch fixed, GPU-hours grow in a straight line with the GPUs beyond one host; "
    "the slope is fitted on MosaicML's 8 to 128 A100 (3.5 % off at worst); more than 128 GPUs are an extrapolation.",
    "Spot: 15 % more wall time for waiting, an assumption; the rest of the run stays as the parameter set has it.",
    "Micro-batch: the largest that fits the GPU's memory, by phase, as estimated for Stable Diffusion 2: "
    "tune.micro_batch_size and each later phase's micro_batch_size may be this or less.",
    "A savings plan binds for a year: its price counts only where a plan is there already (--savings-plan).",
)


def plan_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the frontier as text, cheapest first, and the choice or what comes nearest at the top."""
    choice = plan.best or plan.nearest
    shown = [choice, *(option for option in plan.frontier if option != choice)]
    return [_row(plan, option) for option in shown]


def plan_table(plan: Plan) -> RichTable:
    """Return the plan for a terminal."""
    table = RichTable(box=None, pad_edge=False)
    for column, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if column in NUMERIC else "left", no_wrap=True)
    for number, row in enumerate(plan_rows(plan)):
        table.add_row(*row, style="bold" if number == 0 else None)
    return table


def plan_json(plan: Plan) -> Mapping[str, Any]:
    """Return the plan whole, every option included."""
    return {
        **asdict(plan),
        "met": plan.best is not None,
        "best": asdict(plan.best) if plan.best else None,
        "nearest": asdict(plan.nearest),
        "frontier": [asdict(option) for option in plan.frontier],
        "verdict": plan.verdict(),
    }


def plan_document(plan: Plan, name: str) -> Document:
    """Return the plan's page."""
    from pipeline_definition.pages.charts import trade_off

    choice = plan.best or plan.nearest
    described = "Days against dollars of every option, with the frontier and both limits"
    points, limits = [(option.days, option.usd) for option in plan.options], (plan.deadline_days, plan.budget_usd)
    chosen = (choice.days, choice.usd)
    drawing = trade_off("plan", described, points, chosen, "days", "dollars", limits=limits, logarithmic=True)
    charts, tables = (Chart(CHART_TITLE, drawing),), (Table(HEADERS, tuple(plan_rows(plan)), NUMERIC),)
    return Document(
        eyebrow=(f"{name}: {plan.deadline_days:g} days, ${plan.budget_usd:,.0f}",),
        title="A plan that meets both" if plan.best else "No plan meets both",
        lead=plan.verdict(),
        sections=(Section("options", "Options", " ".join(NOTES), charts=charts, tables=tables, is_wide=True),),
    )


def _row(plan: Plan, option: Option) -> tuple[str, ...]:
    return (
        f"{option.instances} x {option.instance_type}",
        str(option.gpus),
        option.purchase.replace("_", " "),
        f"{option.days:.1f}",
        f"{option.usd:,.0f}",
        f"{option.training_days:.1f}",
        f"{option.training_usd:,.0f}",
        f"{option.efficiency:.0%}",
        option.rate_kind,
        ", ".join(map(str, option.micro_batch_sizes)),
        "yes" if plan.meets(option) else "no",
    )
