"""What ran: the graph of the steps, and each step over time: when, how long, on what, and at what cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_definition.pages.formats import dollars, figure
from pipeline_definition.report.run import Run, RunStep

Place = tuple[float, float]
RADIUS = 15.0


@dataclass(frozen=True)
class GraphDrawing:
    direction: str
    """lying, for wide screens, or standing, for phones."""
    width: float
    height: float
    stations: tuple[tuple[RunStep, float, float], ...]
    """Each step with the x and y of its circle."""
    lines: tuple[tuple[str, bool], ...]
    """SVG path from one step to the next, and whether the run went this way."""


def drawing(direction: str, steps: Sequence[RunStep]) -> GraphDrawing:
    """Return the graph from left to right, names below the circles, or standing, names beside them."""
    nodes = [step.node for step in steps]
    ranks, lanes = (1 + max((getattr(node, name) for node in nodes), default=0) for name in ("rank", "lane"))
    if direction == "lying":
        places = {node.name: (104.0 * (node.rank + 0.5), 26 + 84.0 * node.lane) for node in nodes}
        size = (104.0 * ranks, 14 + 84.0 * lanes)
    else:
        places = {node.name: (24 + 150.0 * node.lane, 24 + 62.0 * node.rank) for node in nodes}
        size = (max(330.0, 30 + 150.0 * lanes), 62.0 * ranks - 8)
    lines = tuple(
        (_path(direction, places[parent], places[step.name]), step.style != "waiting")
        for step in steps
        for parent in step.node.parents
    )
    return GraphDrawing(direction, *size, tuple((step, *places[step.name]) for step in steps), lines)


def _path(direction: str, start: Place, end: Place) -> str:
    """Return a line, or a curve where the lane changes, from the edge of one circle to the edge of the next."""
    (x1, y1), (x2, y2) = start, end
    if direction == "lying":
        x1, x2 = x1 + RADIUS, x2 - RADIUS
        bend = min(40.0, (x2 - x1) / 2)
        return f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
    y1, y2 = y1 + RADIUS, y2 - RADIUS
    bend = (y2 - y1) / 2
    return f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"


def timeline(run: Run) -> Iterator[dict[str, Any]]:
    """Yield a row for each step of the definition: when it ran in percent of the run, how long or why not, the cost."""
    for step in run.steps:
        start = width = 0.0
        if run.start is not None and run.seconds and step.start is not None and step.seconds is not None:
            start = min(1.0, max(0.0, (step.start - run.start).total_seconds() / run.seconds))
            width = min(1.0 - start, step.seconds / run.seconds)
        attempts = int(step.record.get("attempts") or 1)
        cost = dollars(step.cost.usd) if step.cost.is_known else f"{figure(step.cost.instance_hours)} h"
        yield {
            "step": step,
            "from_percent": round(100 * start, 2),
            "width_percent": round(100 * width, 2),
            "time": step.time if step.time and step.style != "cached" else step.state,
            "cost": "" if run.is_local or not step.cost.instance_hours else cost,
            "note": f"{attempts} attempts" if attempts > 1 else "",
        }
