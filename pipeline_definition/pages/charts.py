"""The charts of every page, drawn by matplotlib.

Each takes its name, which keeps its ids apart from those of the page's other charts, a description for people who
cannot see it, and plain numbers; it returns SVG to put into the page.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline_definition.pages.formats import short_count, short_dollars
from pipeline_definition.pages.svg import ACCENT, FAIL, INK, MUTED, PAPER, SECOND, STYLE, THIRD, inline_svg

WIDTH, HEIGHT = 400.0, 210.0
# More than a phone or a page can show; a run of weeks logs a hundred times more.
MAX_POINTS = 400

Points = Sequence[tuple[float, float]]
Limits = tuple[float | None, float | None]
"""Limits of x and y; None: no limit."""
P = ParamSpec("P")


@dataclass(frozen=True)
class Series:
    name: str
    points: Points
    """(x, y), x ascending."""
    marked: bool = False
    """Whether each point has a dot: for few points."""


@dataclass(frozen=True)
class Reading:
    value: float
    low: float | None = None
    high: float | None = None
    """Interval around the value."""


def _chart(draw: Callable[Concatenate[Axes, P], None]) -> Callable[Concatenate[str, str, P], Markup]:
    """Turn a function that draws on axes into one that takes a name and a description and returns the SVG."""

    @functools.wraps(draw)
    def chart(name: str, description: str, /, *args: P.args, **kwargs: P.kwargs) -> Markup:
        with matplotlib.style.context(STYLE, after_reset=True):
            figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, layout="constrained")
            draw(figure.add_subplot(), *args, **kwargs)
            return inline_svg(figure, name, description)

    return chart


@_chart
def curves(
    axes: Axes,
    series: Sequence[Series],
    x_axis: str = "samples seen",
    in_dollars: bool = False,
    logarithmic: bool = False,
    from_zero: bool = False,
) -> None:
    """Draw values over something, one line for each series, with a line at zero where dollars cross it."""
    for colour, one in zip((ACCENT, SECOND, THIRD), series, strict=False):
        x, y = zip(*thinned(one.points), strict=True)
        marker = {"marker": "o", "markersize": 4.5, "markeredgecolor": PAPER} if one.marked else {}
        axes.plot(x, y, color=colour, **marker)  # type: ignore[arg-type]
    values = [y for one in series for _, y in one.points]
    if logarithmic:
        axes.set_yscale("log")
    if from_zero:
        # Where the level counts, a cut-off axis would make noise look like a change.
        axes.set_ylim(0, 1.1 * max(values))
    if in_dollars and min(values) < 0:
        axes.axhline(0, color=INK, linewidth=1)
    axes.xaxis.set_major_formatter(FuncFormatter(short_count))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(short_dollars if in_dollars else short_count))
    axes.set_xlabel(x_axis)
    axes.margins(x=0.01)


@_chart
def bars(axes: Axes, rows: Sequence[tuple[str, float, str]]) -> None:
    """Draw a bar for each (name, value, text), one above the other."""
    axes.grid(visible=False)
    axes.figure.set_figheight((8 + 24.0 * len(rows)) / 72)  # type: ignore[union-attr]
    for place, (_, value, text) in enumerate(rows):
        axes.barh(-place, value, height=0.56, color=ACCENT)
        axes.annotate(text, (value, -place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks([-place for place in range(len(rows))], [name for name, *_ in rows])
    axes.set_xlim(0, 1.22 * max(value for _, value, _ in rows) or 1)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


@_chart
def tornado(axes: Axes, rows: Sequence[tuple[str, float, float]], value: float) -> None:
    """Draw how far each input moves a value in dollars: (name, value at its low end, at its high end), widest first."""
    axes.figure.set_figheight((40 + 22.0 * len(rows)) / 72)  # type: ignore[union-attr]
    for place, (_, low, high) in enumerate(rows):
        for end, colour in ((low, SECOND), (high, ACCENT)):
            axes.barh(-place, end - value, left=value, height=0.56, color=colour)
    axes.axvline(value, color=INK, linewidth=1)
    if any(low < 0 < high or high < 0 < low for _, low, high in rows):
        axes.axvline(0, color=FAIL, linewidth=1, linestyle="--")
    axes.set_yticks([-place for place in range(len(rows))], [name for name, *_ in rows])
    axes.xaxis.set_major_formatter(FuncFormatter(short_dollars))
    axes.xaxis.set_major_locator(MaxNLocator(5))


@_chart
def trade_off(
    axes: Axes,
    points: Points,
    chosen: tuple[float, float] | None,
    x_axis: str,
    y_axis: str = "",
    lower_is_better: bool = True,
    limits: Limits | None = None,
    logarithmic: bool = False,
) -> None:
    """Draw what each way reaches (y) over what it costs (x), the frontier, and the choice.

    `limits` are the largest x and y allowed: a choice beyond one of them is marked as a failure.
    """
    axes.plot(*zip(*points, strict=True), "o", color=MUTED, markersize=5, markeredgecolor=PAPER)
    front = zip(*frontier(points, lower_is_better), strict=True)
    axes.plot(*front, "o-", color=SECOND, markersize=5, linewidth=1.4, drawstyle="steps-post", markeredgecolor=PAPER)
    if chosen is not None:
        met = all(limit is None or value <= limit for value, limit in zip(chosen, limits or (None, None), strict=True))
        colour = ACCENT if met else FAIL
        axes.plot(*chosen, "o", color=colour, markersize=9, markeredgecolor=PAPER)
    _draw_limits(axes, limits or (None, None))
    axes.margins(0.09, 0.14)
    axes.set_xlabel(x_axis)
    axes.set_ylabel(y_axis)
    if not logarithmic:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, text in ((axes.xaxis, short_count), (axes.yaxis, short_dollars)):
        axis.set_major_formatter(FuncFormatter(text))
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())


@_chart
def plane(
    axes: Axes,
    marks: Sequence[tuple[str, Reading, Reading]],
    limits: Limits,
    chosen: str,
    joined: bool = False,
    names: tuple[str, str] = ("CLIP score", "FID"),
) -> None:
    """Draw FID over CLIP score, for each (name, CLIP score, FID) with both intervals; the `chosen` one is the model's.

    `limits` are the gate's smallest CLIP score and largest FID: what passes lies right of the one and below the other.
    Marks `joined` in their order make the FID-CLIP curve; a limit far outside the curve is not drawn.
    """
    others = SECOND if joined else MUTED
    if joined:
        axes.plot([x.value for _, x, _ in marks], [y.value for *_, y in marks], color=others, linewidth=1.4)
    for name, x, y in marks:
        is_chosen = name == chosen
        colour = ACCENT if is_chosen else others
        place, offset, side = (x.value, y.value), (0, 9 if is_chosen else -10), "bottom" if is_chosen else "top"
        axes.errorbar(*place, _reach(y), _reach(x), "o", color=colour, markersize=6.5, elinewidth=1.6)
        axes.annotate(name, place, offset, textcoords="offset points", color=colour, ha="center", va=side)
    axes.margins(0.16, 0.2)
    if joined:
        limits = (_if_near(limits[0], axes.get_xlim()), _if_near(limits[1], axes.get_ylim()))
    _draw_limits(axes, limits)
    if not joined:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if names[0] == "version":
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


def thinned(points: Points) -> Points:
    """Return at most MAX_POINTS points: means of neighbours, so that noise thins out and the course stays."""
    if len(points) <= MAX_POINTS:
        return points
    edges = [round(i * len(points) / MAX_POINTS) for i in range(MAX_POINTS + 1)]
    groups = [points[start:end] for start, end in itertools.pairwise(edges)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def frontier(points: Points, lower_is_better: bool) -> Points:
    """Return the points that no other beats in cost and objective both, cheapest first."""
    sign = 1 if lower_is_better else -1
    front: list[tuple[float, float]] = []
    for cost, objective in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * objective < sign * front[-1][1]:
            front.append((cost, objective))
    return front


def _reach(mark: Reading) -> tuple[tuple[float], tuple[float]] | None:
    if mark.low is None or mark.high is None:
        return None
    return (max(0.0, mark.value - mark.low),), (max(0.0, mark.high - mark.value),)


def _if_near(limit: float | None, span: tuple[float, float]) -> float | None:
    """Return a limit that lies no further from an axis than the axis is long."""
    low, high = span
    return limit if limit is not None and low - (high - low) <= limit <= high + (high - low) else None


def _draw_limits(axes: Axes, limits: Limits) -> None:
    for draw, limit in zip((axes.axvline, axes.axhline), limits, strict=True):
        if limit is not None:
            draw(limit, color=INK, linewidth=1, linestyle=(0, (3, 3)))
