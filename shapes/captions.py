"""The grid of captions: every size, colour, shape, place and other background, in one fixed order.

Reads nothing, writes nothing. 2 sizes x 8 colours x 7 shapes x 5 places x 7 other backgrounds = 3,920 captions such as
'a small red circle at the top on a blue background'.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Final, NamedTuple

SIZES: Final = ("small", "large")
# Far apart in RGB, so that a small model tells them apart, and all taking the article 'a'.
COLOURS: Final = ("red", "yellow", "green", "cyan", "blue", "pink", "black", "white")
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "cross", "ring")
PLACES: Final = ("at the top", "at the bottom", "on the left", "on the right", "in the centre")

_PATTERN: Final = re.compile(
    rf"a (?P<size>{'|'.join(SIZES)}) (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
    rf" (?P<place>{'|'.join(PLACES)}) on a (?P<background>{'|'.join(COLOURS)}) background"
)


class Caption(NamedTuple):
    """The five words that a caption is made of."""

    size: str
    colour: str
    shape: str
    place: str
    background: str

    def text(self) -> str:
        """Return the caption as a person writes it."""
        return f"a {self.size} {self.colour} {self.shape} {self.place} on a {self.background} background"


def every() -> list[Caption]:
    """Return the whole grid, 3,920 captions, always in the same order."""
    grid = itertools.product(SIZES, COLOURS, SHAPES, PLACES, COLOURS)
    return [Caption(*parts) for parts in grid if parts[1] != parts[4]]


def parse(text: str) -> Caption:
    """Return the parts of a caption.

    Raises ValueError that says what a caption looks like, for a text that is not in the grid.
    """
    found = _PATTERN.fullmatch(text)
    if found is None or found["colour"] == found["background"]:
        raise ValueError(f"caption {text!r} is not in the grid; one that is: {every()[0].text()!r}")
    return Caption(**found.groupdict())


def is_heldout(text: str, fraction: float = 0.1) -> bool:
    """Return whether a caption belongs to the fraction that no training sees, by a hash of its text.

    The first 8 bytes of its SHA-256, read as a number in [0, 1), are compared with the fraction: the answer depends
    on neither the order nor the number of the captions.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < fraction * 2**64
