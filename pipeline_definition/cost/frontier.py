"""Ways to run steps that no other way beats in hours and dollars both, and how those of several steps combine.

Reads nothing, writes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline_definition.cost.prices import Purchase
from pipeline_definition.cost.training import HOURS_PER_DAY

# More than these are thinned out, by hours: neighbours are then some 0.2 % apart.
MOST_WAYS = 4000


@dataclass(frozen=True)
class PlannedHosts:
    """What one step runs on, and what that takes."""

    step: str
    instance_type: str
    count: int
    purchase: Purchase
    hours: float
    """Of wall time."""
    usd: float
    rate_kind: str
    type_parameter: str
    count_parameter: str
    gpus: int = 0
    """Of all its hosts together."""
    micro_batch_size: int = 0
    """Of a training, the largest that its GPUs' memory has room for; a smaller one does, too."""
    efficiency: float = 1.0
    """Of a training, what is left of a GPU's speed on one host."""


@dataclass(frozen=True)
class Way:
    """One way to run some steps."""

    hours: float
    """From the first step's begin to the last one's end."""
    usd: float
    hosts: tuple[PlannedHosts, ...]
    """Of each step, in order."""

    @property
    def days(self) -> float:
        return self.hours / HOURS_PER_DAY

    @property
    def trainings(self) -> tuple[PlannedHosts, ...]:
        """Those of the hosts that train, for each phase."""
        return tuple(hosts for hosts in self.hosts if hosts.micro_batch_size)


def frontier(ways: Iterable[Way]) -> tuple[Way, ...]:
    """Return the ways that no other beats in hours and dollars both, cheapest first."""
    all_ways = list(ways)
    hours, usd = _columns(all_ways)
    return tuple(all_ways[index] for index in _unbeaten(hours, usd))


def in_turn(steps: Iterable[Sequence[Way]]) -> tuple[Way, ...]:
    """Return the frontier of steps that wait for each other: hours add up."""
    first, *others = steps
    whole = frontier(first)
    for step in others:
        whole = _combined(whole, step, np.add)
    return whole


def side_by_side(left: Sequence[Way], right: Sequence[Way]) -> tuple[Way, ...]:
    """Return the frontier of two that begin together: the slower one's hours count."""
    return _combined(left, right, np.maximum)


def _combined(left: Sequence[Way], right: Sequence[Way], hours_of: np.ufunc) -> tuple[Way, ...]:
    (left_hours, left_usd), (right_hours, right_usd) = _columns(left), _columns(right)
    hours = hours_of.outer(left_hours, right_hours).ravel()
    usd = np.add.outer(left_usd, right_usd).ravel()
    pairs = [(index, left[index // len(right)], right[index % len(right)]) for index in _unbeaten(hours, usd)]
    return tuple(Way(float(hours[index]), float(usd[index]), a.hosts + b.hosts) for index, a, b in pairs)


def _columns(ways: Sequence[Way]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.array([way.hours for way in ways]), np.array([way.usd for way in ways])


def _unbeaten(hours: npt.NDArray[np.float64], usd: npt.NDArray[np.float64]) -> list[int]:
    """Return the indices of the frontier, cheapest first."""
    order = np.lexsort((hours, usd))
    fastest = np.minimum.accumulate(hours[order])
    kept = order[np.append(True, fastest[1:] < fastest[:-1])] if len(order) else order
    if len(kept) > MOST_WAYS:
        bins = np.floor(np.interp(np.log(hours[kept]), np.log(hours[kept][[-1, 0]]), (0.0, MOST_WAYS)))
        kept = kept[np.append(True, bins[1:] != bins[:-1])]
    return [int(index) for index in kept]
