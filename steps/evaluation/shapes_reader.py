"""Reads pictures of the local set: which shape, of which colour and size, lies where, on which background.

Reads captioned real pictures, writes nothing. What a word looks like, the real pictures say: a colour is the mean of
their backgrounds of that name, a shape the mean outline of the things that are called so; likewise sizes and places.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from steps.errors import StepError
from steps.evaluation.intervals import Floats
from steps.evaluation.reference import Pictures
from steps.evaluation.scoring import CaptionedPictures

SIZE, COLOUR, SHAPE, PLACE, BACKGROUND = KINDS = ("size", "colour", "shape", "place", "background")
CAPTION: Final = re.compile(r"a (\w+) (\w+) (\w+) ((?:at|on|in) the \w+) on a (\w+) background")
# An outline is compared on a grid of so many cells a side; beyond this root mean square it is none of the known ones.
GRID: Final = 16
UNLIKE: Final = 0.4
# What covers less of a picture is a speck, not a thing.
SPECK: Final = 0.01


class ShapesReader:
    """The words of the local set, as its real pictures show them."""

    def __init__(self, pairs: Iterable[CaptionedPictures], captions: Iterable[str]) -> None:
        """Learn from pictures of one thing each. Raises StepError where a word of the captions to judge is in none."""
        real = [(one, parse(text)) for pictures, texts in pairs for one, text in zip(pictures, texts, strict=True)]
        colours = _means((BACKGROUND, fact[BACKGROUND], _paper(picture)) for picture, fact in real)[BACKGROUND]
        apart = (float(np.linalg.norm(one - other)) for one, other in itertools.combinations(colours.values(), 2))
        # By how much a colour has to differ from another to be one of its own.
        self._contrast = min(apart, default=np.inf) / 2
        things = ((thing, fact) for picture, fact in real for thing in self._things(picture))
        seen = _means((kind, fact[kind], thing[kind]) for thing, fact in things for kind in (SIZE, SHAPE, PLACE))
        self._words = {**seen, COLOUR: colours, BACKGROUND: colours}
        self._within = {COLOUR: self._contrast, BACKGROUND: self._contrast, SHAPE: UNLIKE * GRID}
        known = set(itertools.chain.from_iterable(self._words.values()))
        if missing := {word for text in captions for word in parse(text).values()} - known:
            raise StepError(f"evaluate.following: no held-out picture shows {min(missing)!r}; hold out more of them")

    def verdict(self, picture: Pictures, caption: str) -> dict[str, bool]:
        """Return what is right of a picture: that the one thing in it is the asked one, and of it each property."""
        asked, things = parse(caption), self.read(picture)
        right = {kind for kind in KINDS if len(things) == 1 and things[0][kind] == asked[kind]}
        parts = {"object": (), SIZE: (SIZE,), COLOUR: (COLOUR,), PLACE: (PLACE,), "binding": (COLOUR, BACKGROUND)}
        return {kind: right.issuperset((SHAPE, *of)) for kind, of in parts.items()}

    def read(self, picture: Pictures) -> list[dict[str, str]]:
        """Return the words of every thing in a picture, (H, W, 3) uint8; an empty one where none fits."""
        return [{kind: self._word(kind, value) for kind, value in thing.items()} for thing in self._things(picture)]

    def _word(self, kind: str, value: Floats) -> str:
        distance, word = min((float(np.linalg.norm(mean - value)), word) for word, mean in self._words[kind].items())
        return word if distance <= self._within.get(kind, np.inf) else ""

    def _things(self, picture: Pictures) -> Iterator[dict[str, Floats]]:
        """Yield what can be said of each connected region of another colour than the background."""
        differs = np.linalg.norm(picture - _paper(picture), axis=-1) > self._contrast
        # Opened first: single pixels, as a model leaves them, are no part of anything.
        labels, _ = ndimage.label(ndimage.binary_opening(differs), np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            mask, ends = labels[box] == number, np.array([(one.start, one.stop) for one in box]) / picture.shape[0]
            if mask.sum() >= SPECK * labels.size:
                outline = Image.fromarray(mask.astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
                yield {
                    SIZE: (ends[:, 1] - ends[:, 0]).max(),
                    COLOUR: np.median(picture[box][mask], axis=0),
                    SHAPE: np.asarray(outline),
                    PLACE: ends.mean(axis=1),
                    BACKGROUND: _paper(picture),
                }


def parse(caption: str) -> dict[str, str]:
    """Return what a caption says, by kind. Raises StepError for one that is not of the local set."""
    if found := CAPTION.fullmatch(caption):
        return dict(zip(KINDS, found.groups(), strict=True))
    raise StepError(f"evaluate.following: shapes reads pictures of the local set alone, not {caption[:80]!r}")


def _means(seen: Iterable[tuple[str, str, Floats]]) -> dict[str, dict[str, Floats]]:
    """Return the mean of what each word was seen with, by kind."""
    values: dict[str, dict[str, list[Floats]]] = defaultdict(lambda: defaultdict(list))
    for kind, word, value in seen:
        values[kind][word].append(value)
    return {kind: {word: np.mean(of, axis=0) for word, of in words.items()} for kind, words in values.items()}


def _paper(picture: Pictures) -> Floats:
    """Return the colour at a picture's edge, which no thing reaches."""
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return np.asarray(np.median(edge, axis=0))
