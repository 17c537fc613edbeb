"""Aspect-ratio buckets: the few shapes to which pictures are cut, and which picture goes where.

A batch has pictures of one shape, and a picture that is cut to a square loses up to two thirds of itself, often the
heads (NovelAI 2022; SDXL, arXiv:2307.01952, section 2.3 and appendix I).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from steps.data.latents.order import Rows


class Size(NamedTuple):
    height_px: int
    width_px: int

    @property
    def ratio(self) -> float:
        """Width by height."""
        return self.width_px / self.height_px


@dataclass(frozen=True)
class Buckets:
    """Shapes, and the neighbours that take the pictures of those which too few pictures have."""

    candidates: tuple[Size, ...]
    """Every shape, from the tallest to the widest."""
    kept: tuple[int, ...]
    """Which of them are buckets, ascending."""

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        return tuple(self.candidates[index] for index in self.kept)

    def nearest(self, widths: Rows, heights: Rows) -> Rows:
        """Return the bucket of each picture, int64 [n], by its sides in pixels; 0 where those are not known."""
        if len(self.candidates) == 1:
            return np.zeros(len(widths), np.int64)
        return self._taking[_nearest(np.log(widths / heights), self.candidates)]

    def of_sizes(self, sizes: Sequence[Size]) -> Rows:
        """Return which bucket takes the pictures of each candidate, int64 [n]."""
        return self._taking[[self.candidates.index(size) for size in sizes]]

    def merged(self, counts: Rows, at_least: int) -> "Buckets":
        """Return the buckets with `at_least` samples of `counts` [buckets], or the largest; the nearest take others."""
        kept = np.flatnonzero(counts >= at_least)
        if not len(kept):
            kept = np.array([np.argmax(counts)])
        return Buckets(self.candidates, tuple(self.kept[index] for index in kept.tolist()))

    @cached_property
    def _taking(self) -> Rows:
        """Which bucket takes the pictures of each candidate, int64 [candidates]."""
        return _nearest(_log_ratios(self.candidates), self.sizes)


def buckets_of(side_px: int, max_ratio: float, step_px: int) -> Buckets:
    """Return the square, and for each side in steps the largest shape that is no larger, up to `max_ratio` to 1."""
    sizes = {Size(side_px, side_px)}
    for short_px in range(step_px, side_px + 1, step_px):
        long_px = side_px * side_px // short_px // step_px * step_px
        if short_px < long_px <= max_ratio * short_px:
            sizes |= {Size(short_px, long_px), Size(long_px, short_px)}
    ordered = tuple(sorted(sizes, key=lambda size: size.ratio))
    return Buckets(ordered, tuple(range(len(ordered))))


def _nearest(log_ratios: npt.NDArray[np.float64], sizes: Sequence[Size]) -> Rows:
    """Return which of the shapes is nearest to each ratio: twice as wide is as far off as twice as high."""
    centres = _log_ratios(sizes)
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, log_ratios).astype(np.int64, copy=False)


def _log_ratios(sizes: Sequence[Size]) -> npt.NDArray[np.float64]:
    return np.log([size.ratio for size in sizes])
