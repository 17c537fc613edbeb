"""The graph of a run's steps: which waits for which, and where each is drawn.

Reads the definition JSON: references between steps, DependsOn, and the branches of conditions.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

_REFERENCE = re.compile(r"^Steps\.([^.\[]+)")
_BRANCHES = ("IfSteps", "ElseSteps")


@dataclass(frozen=True)
class Node:
    name: str
    kind: str
    title: str
    description: str
    parents: tuple[str, ...]
    """Steps that must end before this one begins, except those implied by others."""
    rank: int
    """Length of the longest path to it."""
    lane: int
    """0: the main line; others are parallel to it."""


def step_graph(definition: Mapping[str, Any]) -> tuple[Node, ...]:
    """Return the steps of a definition in its order, those behind conditions included."""
    steps = {str(step["Name"]): (step, condition) for step, condition in _flat(definition.get("Steps", []), ())}
    waits: dict[str, list[str]] = {}
    for name, (step, condition) in steps.items():
        own = {key: value for key, value in step.get("Arguments", {}).items() if key not in _BRANCHES}
        named = dict.fromkeys((*condition, *step.get("DependsOn", []), *_references(own)))
        waits[name] = [parent for parent in named if parent in steps and parent != name]
    ancestors: dict[str, set[str]] = {}
    ranks: dict[str, int] = {}
    for name in TopologicalSorter(waits).static_order():
        ancestors[name] = {*waits[name]}.union(*(ancestors[parent] for parent in waits[name]))
        ranks[name] = max((ranks[parent] + 1 for parent in waits[name]), default=0)
    # A parent that another parent waits for anyway is left out.
    parents = {
        name: tuple(one for one in own if not any(one in ancestors[other] for other in own))
        for name, own in waits.items()
    }
    lanes = _lanes(parents, ranks)
    nodes = []
    for name, (step, _) in steps.items():
        kind, title, description = step.get("Type", ""), step.get("DisplayName") or name, step.get("Description") or ""
        nodes.append(Node(name, str(kind), str(title), str(description), parents[name], ranks[name], lanes[name]))
    return tuple(nodes)


def _flat(steps: Any, condition: tuple[str, ...]) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """Yield each step with the condition that leads to it, if any."""
    for step in steps:
        yield step, condition
        for branch in _BRANCHES if step.get("Type") == "Condition" else ():
            yield from _flat(step.get("Arguments", {}).get(branch, []), (step["Name"],))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and (match := _REFERENCE.match(str(value.get("Get", "")))):
        yield match[1]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _references(item)


def _lanes(parents: Mapping[str, tuple[str, ...]], ranks: Mapping[str, int]) -> dict[str, int]:
    """Give each step its parent's lane where that is free at its rank, else the nearest free one."""
    lanes: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    for name in sorted(parents, key=lambda name: ranks[name]):
        lane = min((lanes[parent] for parent in parents[name]), default=0)
        while (ranks[name], lane) in taken:
            lane += 1
        lanes[name] = lane
        taken.add((ranks[name], lane))
    return lanes
