"""The graph of a run's steps: which waits for which, and where each is drawn.

Reads the definition JSON: references between steps, DependsOn, and the branches of conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(r"^Steps\.([^.\[]+)")
_BRANCHES = ("IfSteps", "ElseSteps")


@dataclass(frozen=True)
class Node:
    """One step of the definition."""

    name: str
    kind: str
    """Type of the step, such as Processing."""
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
    steps = dict(_flat(definition.get("Steps", []), ()))
    parents = {name: _reduced(name, _all_parents(steps)) for name in steps}
    ranks = _ranks(parents)
    lanes = _lanes(parents, ranks)
    nodes = []
    for name, (step, _) in steps.items():
        kind, title, description = step.get("Type", ""), step.get("DisplayName") or name, step.get("Description") or ""
        nodes.append(Node(name, str(kind), str(title), str(description), parents[name], ranks[name], lanes[name]))
    return tuple(nodes)


Steps = Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]]


def _flat(steps: Any, condition: tuple[str, ...]) -> Iterator[tuple[str, tuple[Mapping[str, Any], tuple[str, ...]]]]:
    """Yield (name, (step, the condition that leads to it, if any))."""
    for step in steps:
        name = str(step["Name"])
        yield name, (step, condition)
        if step.get("Type") == "Condition":
            for branch in _BRANCHES:
                yield from _flat(step.get("Arguments", {}).get(branch, []), (name,))


def _all_parents(steps: Steps) -> dict[str, tuple[str, ...]]:
    parents = {}
    for name, (step, condition) in steps.items():
        named = dict.fromkeys((*condition, *step.get("DependsOn", []), *_references(_own(step))))
        parents[name] = tuple(parent for parent in named if parent in steps and parent != name)
    return parents


def _own(step: Mapping[str, Any]) -> Any:
    """Return a step's arguments without the steps of its branches."""
    branches = _BRANCHES if step.get("Type") == "Condition" else ()
    return {key: value for key, value in step.get("Arguments", {}).items() if key not in branches}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and (match := _REFERENCE.match(str(value.get("Get", "")))):
        yield match[1]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _references(item)


def _reduced(name: str, parents: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Leave out a parent that another parent waits for anyway."""
    direct = parents[name]
    return tuple(
        one for one in direct if not any(one in _ancestors(other, parents) for other in direct if other != one)
    )


def _ancestors(name: str, parents: Mapping[str, tuple[str, ...]]) -> set[str]:
    ancestors: set[str] = set()
    waiting = list(parents[name])
    while waiting:
        parent = waiting.pop()
        if parent not in ancestors:
            ancestors.add(parent)
            waiting += parents[parent]
    return ancestors


def _ranks(parents: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return the length of the longest path to each step; without a cycle, one round for each step is enough."""
    ranks = dict.fromkeys(parents, 0)
    for _ in parents:
        ranks = {name: max((ranks[parent] + 1 for parent in parents[name]), default=0) for name in parents}
    return ranks


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
