"""Where the step graph is drawn: once lying, for wide screens, and once standing, for phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline_definition.report.graph import Node

LYING_PITCH = (104.0, 84.0)
STANDING_PITCH = (150.0, 62.0)
RADIUS = 15.0


@dataclass(frozen=True)
class Station:
    """One step as it is drawn."""

    name: str
    x: float
    y: float
    status: str
    """Name of its style: succeeded, cached, failed, executing, stopped, waiting."""
    label: str
    """Status or time under the name."""
    tip: str


@dataclass(frozen=True)
class GraphEdge:
    """From one step to the next."""

    path: str
    travelled: bool
    """Whether the run went this way."""


@dataclass(frozen=True)
class GraphDrawing:
    """The whole graph in one direction."""

    direction: str
    """lying or standing."""
    width: float
    height: float
    stations: tuple[Station, ...]
    lines: tuple[GraphEdge, ...]


@dataclass(frozen=True)
class Look:
    """How a step looks in this run."""

    status: str
    label: str


def lying(nodes: Sequence[Node], looks: Mapping[str, Look]) -> GraphDrawing:
    """Return the graph from left to right, names below the circles."""
    pitch_x, pitch_y = LYING_PITCH
    places = {node.name: (pitch_x * (node.rank + 0.5), 26 + pitch_y * node.lane) for node in nodes}
    ranks, lanes = _extent(nodes)
    return _drawing("lying", nodes, looks, places, (pitch_x * ranks, 26 + pitch_y * lanes - 12))


def standing(nodes: Sequence[Node], looks: Mapping[str, Look]) -> GraphDrawing:
    """Return the graph from top to bottom, names beside the circles."""
    pitch_x, pitch_y = STANDING_PITCH
    places = {node.name: (24 + pitch_x * node.lane, 24 + pitch_y * node.rank) for node in nodes}
    ranks, lanes = _extent(nodes)
    return _drawing("standing", nodes, looks, places, (max(330.0, 30 + pitch_x * lanes), pitch_y * ranks - 8))


def _extent(nodes: Sequence[Node]) -> tuple[int, int]:
    return 1 + max((n.rank for n in nodes), default=0), 1 + max((n.lane for n in nodes), default=0)


def _drawing(
    direction: str,
    nodes: Sequence[Node],
    looks: Mapping[str, Look],
    places: Mapping[str, tuple[float, float]],
    size: tuple[float, float],
) -> GraphDrawing:
    stations = tuple(_station(node, looks[node.name], places[node.name]) for node in nodes)
    lines = tuple(
        GraphEdge(_path(direction, places[parent], places[node.name]), looks[node.name].status != "waiting")
        for node in nodes
        for parent in node.parents
    )
    return GraphDrawing(direction, *size, stations, lines)


def _station(node: Node, look: Look, place: tuple[float, float]) -> Station:
    tip = f"{node.title}: {node.description}" if node.description else node.title
    return Station(node.name, *place, look.status, look.label, tip)


def _path(direction: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    """Return a line, or a curve where the lane changes, from the edge of one circle to the edge of the next."""
    (x1, y1), (x2, y2) = start, end
    if direction == "lying":
        x1, x2 = x1 + RADIUS, x2 - RADIUS
        bend = min(40.0, (x2 - x1) / 2)
        return f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
    y1, y2 = y1 + RADIUS, y2 - RADIUS
    bend = (y2 - y1) / 2
    return f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
