"""The charts of a plan and of a business case, in the style of the run's page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline_definition.cost.plan import Option, Plan
from pipeline_definition.pages.charts import HEIGHT, WIDTH, Series
from pipeline_definition.pages.formats import short_count
from pipeline_definition.pages.svg import (
    ACCENT,
    FAIL,
    INK,
    MUTED,
    PAPER,
    SECOND,
    THIRD,
    drawn_on,
    inline_svg,
    new_figure,
)

Points = Sequence[tuple[float, float]]


def days_and_dollars(plan: Plan) -> Markup:
    """Return days across and dollars up for every option, the frontier, the two limits, and the choice."""
    with drawn_on():
        figure = new_figure(WIDTH, HEIGHT + 40)
        axes = figure.add_subplot()
        x, y = zip(*_places(plan.options), strict=True)
        axes.plot(x, y, "o", color=MUTED, markersize=4, markeredgecolor=PAPER)
        axes.plot(*zip(*_places(plan.frontier), strict=True), "o-", color=ACCENT, markersize=5, markeredgecolor=PAPER)
        for draw, limit in ((axes.axvline, plan.deadline_days), (axes.axhline, plan.budget_usd)):
            draw(limit, color=INK, linewidth=1, linestyle=(0, (3, 3)))
        choice = plan.best or plan.nearest
        colour = THIRD if plan.best else FAIL
        axes.plot(choice.days, choice.usd, "o", color=colour, markersize=10, markeredgecolor=PAPER)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(short_count))
        axes.yaxis.set_major_formatter(FuncFormatter(_dollars))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("days")
        axes.set_ylabel("dollars")
        return inline_svg(figure, "plan", "Days against dollars of every option, with the frontier and both limits")


def lines(name: str, description: str, series: Sequence[Series], x_axis: str) -> Markup:
    """Return dollars over something, one line for each series, with a line at zero where it is crossed."""
    with drawn_on():
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        for colour, one in zip((ACCENT, SECOND, THIRD), series, strict=False):
            axes.plot(*zip(*one.points, strict=True), color=colour)
        low = min(y for one in series for _, y in one.points)
        if low < 0:
            axes.axhline(0, color=INK, linewidth=1)
        axes.xaxis.set_major_formatter(FuncFormatter(short_count))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(_dollars))
        axes.set_xlabel(x_axis)
        axes.margins(x=0.01)
        return inline_svg(figure, name, description)


def _places(options: Sequence[Option]) -> Points:
    return [(option.days, option.usd) for option in options]


def _dollars(value: float, _position: object = None) -> str:
    return f"-${short_count(-value)}" if value < 0 else f"${short_count(value)}"
