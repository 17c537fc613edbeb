"""The grid of captions: every size, colour, shape, place and other background, in one fixed order.

Reads nothing, writes nothing. 2 sizes x 8 colours x 7 shapes x 5 places x 7 other backgrounds = 3,920 captions such as
'a small red circle at the top on a blue background'.
"""

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import params.heldout

SIZES: Final = ("small", "large")
# Far apart in RGB, so that a small model tells them apart, and all taking the article 'a'.
COLOURS: Final = ("red", "yellow", "green", "cyan", "blue", "pink", "black", "white")
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "cross", "ring")
# Drawn on request alone, so that a model can be taught something that it has never seen.
NEW_SHAPE: Final = "moon"
PLACES: Final = ("at the top", "at the bottom", "on the left", "on the right", "in the centre")


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


def every(shapes: Sequence[str] = SHAPES) -> list[Caption]:
    """Return the whole grid, 3,920 captions, or that of other shapes, 560 of each, always in the same order."""
    grid = itertools.product(SIZES, COLOURS, shapes, PLACES, COLOURS)
    return [Caption(*parts) for parts in grid if parts[1] != parts[4]]


def parse(text: str) -> Caption:
    """Return the parts of a caption of the grid. Raises KeyError for any other text."""
    return {caption.text(): caption for caption in every()}[text]


def is_heldout(text: str) -> bool:
    """Return whether a caption belongs to the tenth that no training sees."""
    return params.heldout.is_heldout(text, 0.1)


def divided(grid: Sequence[Caption]) -> tuple[list[Caption], list[Caption]]:
    """Return the captions that trainings see, and those that none does."""
    heldout = [caption for caption in grid if is_heldout(caption.text())]
    return [caption for caption in grid if caption not in heldout], heldout
