"""Draws a caption: anti-aliased from signed distances, the same pixels every time, at any size.

Reads nothing, writes nothing. The web serves pictures of 128 px although the models see 64 px, so that the download
step has something to resize, as on the real web; half the side is what area resampling shrinks best.
"""

import functools
import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shapes.captions import Caption

# Counts up when the same caption comes to look different, so that folders of old pictures are drawn anew.
VERSION: Final = 1
WEB_SIZE_PX: Final = 128

RGB: Final = {
    "red": (222, 45, 48),
    "yellow": (250, 212, 55),
    "green": (38, 150, 72),
    "cyan": (80, 205, 228),
    "blue": (38, 82, 208),
    "pink": (242, 120, 184),
    "black": (28, 28, 32),
    "white": (246, 246, 242),
}
# Radii and the margin as fractions of the picture's side.
RADIUS: Final = {"small": 0.2, "large": 0.3}
MARGIN: Final = 0.05
DIRECTION: Final = {
    "at the top": (0, -1),
    "at the bottom": (0, 1),
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "in the centre": (0, 0),
}

Plane = NDArray[np.float64]
Distance = Callable[[Plane, Plane], Plane]
Pixels = NDArray[np.uint8]


def draw(caption: Caption, size_px: int = WEB_SIZE_PX, aspect: float = 1.0) -> Pixels:
    """Return a caption's picture, RGB (height, width, 3), its shorter side size_px; `aspect` is width by height."""
    cover = coverage(caption.shape, caption.size, caption.place, size_px)[..., None]
    ink, paper = np.array(RGB[caption.colour], float), np.array(RGB[caption.background], float)
    square: Pixels = np.rint(paper + cover * (ink - paper)).astype(np.uint8)
    width, height = size_of(size_px, aspect)
    pixels: Pixels = np.full((height, width, 3), np.rint(paper), np.uint8)
    top, left = (height - size_px) // 2, (width - size_px) // 2
    pixels[top : top + size_px, left : left + size_px] = square
    return pixels


def size_of(size_px: int, aspect: float) -> tuple[int, int]:
    """Return the width and height of a picture whose shorter side is size_px."""
    return round(size_px * max(aspect, 1.0)), round(size_px * max(1 / aspect, 1.0))


@functools.lru_cache(maxsize=256)
def coverage(shape: str, size: str, place: str, size_px: int) -> Plane:
    """Return how much of each pixel the shape covers, (size_px, size_px) in 0..1.

    A pixel whose centre is d px outside the edge is covered by 0.5 - d of its area, to first order. Kept, since 3,920
    captions share 70 outlines.
    """
    x0, y0 = centre(size, place)
    axis = (np.arange(size_px) + 0.5) / size_px
    x, y = np.meshgrid((axis - x0) / RADIUS[size], (axis - y0) / RADIUS[size])
    return np.clip(0.5 - _DISTANCE[shape](x, y) * RADIUS[size] * size_px, 0.0, 1.0)


def centre(size: str, place: str) -> tuple[float, float]:
    """Return the shape's centre (x, y) as fractions of the side: a shape at an edge keeps the margin to it."""
    reach = 0.5 - MARGIN - RADIUS[size]
    right, down = DIRECTION[place]
    return 0.5 + right * reach, 0.5 + down * reach


def _circle(radius: float, x0: float = 0.0, y0: float = 0.0) -> Distance:
    return lambda x, y: np.hypot(x - x0, y - y0) - radius


def _ring(outer: float, inner: float) -> Distance:
    middle, half = (outer + inner) / 2, (outer - inner) / 2
    return lambda x, y: np.abs(np.hypot(x, y) - middle) - half


def _polygon(corners: list[tuple[float, float]]) -> Distance:
    """Return the distance to a polygon: to the nearest edge, negative inside by the even-odd rule."""

    def distance(x: Plane, y: Plane) -> Plane:
        nearest = np.full(x.shape, np.inf)
        inside = np.zeros(x.shape, bool)
        for (xa, ya), (xb, yb) in zip(corners, [*corners[1:], corners[0]], strict=True):
            along = ((x - xa) * (xb - xa) + (y - ya) * (yb - ya)) / ((xb - xa) ** 2 + (yb - ya) ** 2)
            t = np.clip(along, 0.0, 1.0)
            nearest = np.minimum(nearest, np.hypot(x - xa - t * (xb - xa), y - ya - t * (yb - ya)))
            if ya != yb:
                inside ^= ((ya > y) != (yb > y)) & (x < xa + (y - ya) * (xb - xa) / (yb - ya))
        return np.where(inside, -nearest, nearest)

    return distance


def _corners(count: int, *radii: float) -> list[tuple[float, float]]:
    """Return the corners of a regular polygon or star that points up; the radii take turns."""
    turn = [2 * math.pi * k / count for k in range(count)]
    return [(radii[k % len(radii)] * math.sin(a), -radii[k % len(radii)] * math.cos(a)) for k, a in enumerate(turn)]


def _cross(arm: float, half: float) -> list[tuple[float, float]]:
    quarter = [(half, -arm), (half, -half), (arm, -half)]
    turns = [quarter, [(-y, x) for x, y in quarter], [(-x, -y) for x, y in quarter], [(y, -x) for x, y in quarter]]
    return [corner for turn in turns for corner in turn]


def _heart() -> Distance:
    """Return a heart: a square on its tip, and a half circle on each of its two upper sides."""
    half, down = 0.58, 0.12
    diamond = [(0.0, down - 2 * half), (2 * half, down), (0.0, down + 2 * half), (-2 * half, down)]
    scaled = [(x / math.sqrt(2), down + (y - down) / math.sqrt(2)) for x, y in diamond]
    side, reach = half / math.sqrt(2), half
    lobes = [_circle(reach, sign * side, down - side) for sign in (-1, 1)]
    parts = [_polygon(scaled), *lobes]
    return lambda x, y: functools.reduce(np.minimum, [part(x, y) for part in parts])


def _moon() -> Distance:
    """Return a crescent: a circle without another one, which covers its right side."""
    whole, bite = _circle(1.0), _circle(0.82, 0.46)
    return lambda x, y: np.maximum(whole(x, y), -bite(x, y))


# In units of the radius; drawn a little within or beyond it, so that all look of one size.
_DISTANCE: Final[dict[str, Distance]] = {
    "circle": _circle(0.98),
    "square": _polygon([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
    "triangle": _polygon([(x, y + 0.22) for x, y in _corners(3, 1.2)]),
    "star": _polygon([(x, y + 0.06) for x, y in _corners(10, 1.14, 0.46)]),
    "heart": _heart(),
    "cross": _polygon(_cross(1.0, 0.34)),
    "ring": _ring(1.0, 0.52),
    "moon": _moon(),
}
