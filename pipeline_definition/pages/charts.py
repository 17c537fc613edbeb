"""The charts of the run's page, drawn by matplotlib.

Each takes plain numbers and returns SVG to stand in the page; nothing is drawn from too few points to say anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline_definition.pages.formats import short_count
from pipeline_definition.pages.svg import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    RULE,
    SECOND,
    THIRD,
    drawn_on,
    inline_svg,
    new_figure,
)

WIDTH, HEIGHT = 400.0, 210.0
# More than a phone or a page can show; a run of weeks logs a hundred times as many.
MAX_POINTS = 400

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: Points
    """(x, y), x ascending."""
    marked: bool = False
    """With a dot at each point: for few points."""


@dataclass(frozen=True)
class Mark:
    """One value on a scale."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    """Interval around the value."""


@dataclass(frozen=True)
class TrialPoint:
    """One trial of a search."""

    cost: float
    objective: float
    best: bool


def curves(
    name: str, description: str, series: Sequence[Series], logarithmic: bool = False, from_zero: bool = False
) -> Markup:
    """Return values over samples seen, one line for each series."""
    with drawn_on():
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        for colour, one in zip((ACCENT, SECOND, THIRD), series, strict=False):
            x, y = zip(*thinned(one.points), strict=True)
            marker = {"marker": "o", "markersize": 4.5, "markeredgecolor": PAPER} if one.marked else {}
            axes.plot(x, y, color=colour, **marker)  # type: ignore[arg-type]
        if logarithmic:
            axes.set_yscale("log")
        if from_zero:
            # Where the level is what counts, an axis cut off would make noise look like news.
            axes.set_ylim(0, 1.1 * max(y for one in series for _, y in one.points))
        _axes_of_samples(axes)
        return inline_svg(figure, name, description)


def scale(name: str, description: str, marks: Sequence[Mark], limit: float | None, lower_is_better: bool) -> Markup:
    """Return values on one line: the first is the model's, the others what it is compared with, `limit` the gate."""
    with drawn_on(grid=False):
        figure = new_figure(260.0, 66.0)
        axes = figure.add_subplot()
        values = [mark.value for mark in marks] + ([limit] if limit is not None else [])
        low, high = min(0.0, *values), max(values) or 1.0
        axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        axes.set_ylim(-1.3, 1.5)
        axes.axis("off")
        axes.plot(axes.get_xlim(), (0, 0), color=RULE, linewidth=4)
        if limit is not None:
            _draw_gate(axes, limit, low if lower_is_better else high)
        for mark in marks[1:]:
            axes.plot(mark.value, 0, "o", color=MUTED, markersize=7, markeredgecolor=PAPER, markeredgewidth=1.5)
            _label(axes, mark.value, -0.62, mark.name, MUTED)
        _draw_model(axes, marks[0])
        return inline_svg(figure, name, description)


def bars(name: str, description: str, parts: Sequence[tuple[str, float]], text: Sequence[str]) -> Markup:
    """Return a bar for each part, longest first as given, with its name and text."""
    with drawn_on(grid=False):
        figure = new_figure(WIDTH, 24.0 * len(parts) + 8)
        axes = figure.add_subplot()
        places = [-place for place in range(len(parts))]
        axes.barh(places, [value for _, value in parts], height=0.56, color=ACCENT)
        axes.set_yticks(places, [label for label, _ in parts])
        axes.set_xlim(0, 1.22 * max(value for _, value in parts) or 1)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        for place, (_, value), words in zip(places, parts, text, strict=True):
            axes.annotate(words, (value, place), (5, 0), textcoords="offset points", va="center")
        return inline_svg(figure, name, description)


def pairs(
    name: str, description: str, rows: Sequence[tuple[str, float, float]], text: Sequence[tuple[str, str]]
) -> Markup:
    """Return two bars for each row, one above the other, with their texts: what was expected, and what came."""
    with drawn_on(grid=False):
        figure = new_figure(WIDTH, 40.0 * len(rows) + 8)
        axes = figure.add_subplot()
        places = [-place for place in range(len(rows))]
        for offset, index, colour in ((0.19, 1, ACCENT), (-0.19, 2, SECOND)):
            values = [row[index] for row in rows]
            axes.barh([place + offset for place in places], values, height=0.34, color=colour)
            for place, value, words in zip(places, values, text, strict=True):
                at = (value, place + offset)
                axes.annotate(words[index - 1], at, (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [row[0] for row in rows])
        axes.set_xlim(0, 1.22 * max(value for row in rows for value in row[1:]) or 1)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        return inline_svg(figure, name, description)


def trials(name: str, description: str, points: Sequence[TrialPoint], cost_axis: str, lower_is_better: bool) -> Markup:
    """Return the objective over cost for each trial, with the frontier: no other trial is better for less."""
    with drawn_on():
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        front = frontier([(point.cost, point.objective) for point in points], lower_is_better)
        axes.plot(*zip(*front, strict=True), color=SECOND, linewidth=1.4, drawstyle="steps-post")
        for point in points:
            size = 9 if point.best else 6.5
            colour = ACCENT if point.best else MUTED
            axes.plot(point.cost, point.objective, "o", color=colour, markersize=size, markeredgecolor=PAPER)
        axes.margins(0.09, 0.14)
        axes.set_xlabel(cost_axis)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return inline_svg(figure, name, description)


def plane(name: str, description: str, marks: Sequence[tuple[Mark, Mark]], limits: tuple[float | None, ...]) -> Markup:
    """Return CLIP score across and FID up, (CLIP score, FID) for each mark, the first the model's.

    `limits` are the gate's smallest CLIP score and largest FID: what passes lies right of the one and below the other.
    """
    with drawn_on():
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        for draw, limit in zip((axes.axvline, axes.axhline), limits, strict=True):
            if limit is not None:
                draw(limit, color=INK, linewidth=1, linestyle=(0, (3, 3)))
        for number, (x, y) in enumerate(marks):
            colour = MUTED if number else ACCENT
            axes.errorbar(x.value, y.value, _reach(y), _reach(x), "o", color=colour, markersize=7, elinewidth=2)
            axes.annotate(
                x.name,
                (x.value, y.value),
                (0, -10 if number else 9),
                textcoords="offset points",
                color=colour,
                ha="center",
                va="top" if number else "bottom",
            )
        axes.margins(0.16, 0.2)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlabel("CLIP score")
        axes.set_ylabel("FID")
        return inline_svg(figure, name, description)


def guidance(
    name: str, description: str, points: Sequence[tuple[Mark, Mark]], chosen: str, limits: tuple[float | None, ...]
) -> Markup:
    """Return the FID-CLIP curve: (CLIP score, FID) at each guidance scale, joined in its order, each with its interval.

    A mark's name is its scale; the `chosen` one is the model's. `limits` are the gate's, as in `plane`, drawn where
    they are near enough to leave the curve its room.
    """
    with drawn_on():
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.add_subplot()
        axes.plot([x.value for x, _ in points], [y.value for _, y in points], color=SECOND, linewidth=1.4)
        for x, y in points:
            colour = ACCENT if x.name == chosen else SECOND
            axes.errorbar(x.value, y.value, _reach(y), _reach(x), "o", color=colour, markersize=6, elinewidth=1.4)
            place = (x.value, y.value)
            axes.annotate(x.name, place, (5, 5), textcoords="offset points", color=colour)
        axes.margins(0.12, 0.16)
        spans = (axes.get_xlim(), axes.get_ylim())
        for draw, limit, (low, high) in zip((axes.axvline, axes.axhline), limits, spans, strict=True):
            if limit is not None and low - (high - low) <= limit <= high + (high - low):
                draw(limit, color=INK, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xlabel("CLIP score")
        axes.set_ylabel("FID")
        return inline_svg(figure, name, description)


def _reach(mark: Mark) -> tuple[tuple[float], tuple[float]] | None:
    """Return how far the interval reaches down and up."""
    if mark.low is None or mark.high is None:
        return None
    return (max(0.0, mark.value - mark.low),), (max(0.0, mark.high - mark.value),)


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


def _axes_of_samples(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(short_count))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(short_count))
    axes.set_xlabel("samples seen")
    axes.margins(x=0.01)


def _draw_gate(axes: Axes, limit: float, good_end: float) -> None:
    axes.plot((good_end, limit), (0, 0), color=THIRD, linewidth=4, alpha=0.55)
    axes.plot((limit, limit), (-0.42, 0.42), color=INK, linewidth=1.6)
    _label(axes, limit, 0.62, "gate", INK)


def _draw_model(axes: Axes, mark: Mark) -> None:
    if mark.low is not None and mark.high is not None:
        axes.plot((mark.low, mark.high), (0, 0), color=ACCENT, linewidth=8, alpha=0.35)
    axes.plot(mark.value, 0, "o", color=ACCENT, markersize=11, markeredgecolor=PAPER, markeredgewidth=2)


def _label(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    low, high = axes.get_xlim()
    place = (x - low) / (high - low)
    side = "left" if place < 0.12 else "right" if place > 0.88 else "center"
    axes.text(x, y, text, color=colour, ha=side, va="bottom" if y > 0 else "top")
