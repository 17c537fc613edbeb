"""Prompts whose pictures can be counted right or wrong, and when they are: the six kinds of GenEval.

Reads compositions.jsonl, fifty prompts of each kind in turns, beside this file. The sentences, the colours and the
rules are those of Ghosh et al. 2023, arXiv:2310.11513; the objects are COCO's.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

COUNT: Final = "count"
PLACES: Final = ("left of", "right of", "above", "below")
# By which share of both sizes two things must be apart, and how far in a direction of the way, to be in that place.
APART: Final = 0.1
ALONG: Final = 0.5


class Found(NamedTuple):
    name: str
    box: Sequence[float]
    """Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class Composition:
    """One prompt, and what its picture must show."""

    kind: str
    prompt: str
    objects: Sequence[str]
    colours: Sequence[str] = ()
    """The objects' colours, in their order."""
    count: int = 1
    place: str = ""
    """Where the first object is, seen from the second."""

    def is_shown(self, found: Sequence[Found], colour_of: Callable[[Found], str]) -> bool:
        """Return whether a picture shows it; of the things, the surest first, no more are looked at than are asked."""
        groups = [[one for one in found if one.name == name] for name in self.objects]
        if any(len(group) < self.count for group in groups) or (self.kind == COUNT and len(groups[0]) > self.count):
            return False
        first = [group[0] for group in groups]
        if any(colour_of(one) != colour for one, colour in zip(first, self.colours, strict=False)):
            return False
        return not self.place or self.place in places(first[0], first[1])


def places(one: Found, other: Found) -> set[str]:
    """Return where a thing is, seen from another: none, one or two places."""
    corners = np.reshape([one.box, other.box], (2, 2, 2))
    way, sizes = corners[0].mean(axis=0) - corners[1].mean(axis=0), (corners[:, 1] - corners[:, 0]).sum(axis=0)
    clear = np.sign(way) * np.maximum(np.abs(way) - APART * sizes, 0.0)
    right, down = clear / max(float(np.linalg.norm(way)), 1e-9)
    return {place for place, far in zip(PLACES, (-right, right, -down, down), strict=True) if far > ALONG}


_LINES: Final = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
SUITE: Final = [Composition(**json.loads(line)) for line in _LINES]
