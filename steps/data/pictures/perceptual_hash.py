"""The look of a picture: a hash and a few colours that survive another size, another compression and small changes.

The hash is pHash (the signs of a picture's lowest frequencies), that of imagehash in a fifth of its time. It sees
shades of grey alone, so the colours are compared as well: a red and a blue shirt have the same hash. Both are taken
from what is seen: upright, in sRGB, and what is transparent on white.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

HASH_SIZE: Final = (32, 32)
HASH_SIDE: Final = 8
HASH_BITS: Final = HASH_SIDE**2
# OpenCV's cosine transform is orthonormal; pHash compares coefficients of one that is not.
_UNSCALED: Final = np.outer(*2 * [np.where(np.arange(HASH_SIDE), 1.0, 2**0.5)])
REDUCING_GAP: Final = 2.0
"""Shrunk by whole factors to twice the size first: five times faster, and at most 2 of 64 bits fall otherwise."""
FLAT_LEVELS: Final = 4
"""Of 255: what differs less than this from its lightest to its darkest spot has no shape to tell it by."""
COLOURS: Final = 4
COLOUR_BYTES: Final = 3 * COLOURS


def perceptual_hash(pixels: Pixels) -> int | None:
    """Return 64 bits of a picture, sRGB [H, W, 3]; None where it is flat, since all flat pictures have the same."""
    import cv2  # a tenth of a second that only workers pay

    whole = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    grey = np.asarray(whole.resize(HASH_SIZE, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP), np.float64)
    if grey.max() - grey.min() < FLAT_LEVELS:
        return None
    lowest = cv2.dct(grey)[:HASH_SIDE, :HASH_SIDE] * _UNSCALED
    ordered = np.sort(lowest, axis=None)
    median = (ordered[HASH_BITS // 2 - 1] + ordered[HASH_BITS // 2]) / 2
    return int.from_bytes(np.packbits(lowest > median).tobytes(), "big")


def colour_layout(pixels: Pixels) -> bytes:
    """Return the mean colours of the quarters of a picture [H, W, 3], row by row: Y, Cb and Cr of each, a byte each."""
    import cv2

    height, width = pixels.shape[:2]
    # OpenCV adds up rows ten times faster than whole quarters.
    halves = [cv2.reduce(part, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0] for part in _halves(pixels, height)]
    means = [part.mean(axis=0) for half in halves for part in _halves(half, width)]
    return Image.fromarray(np.rint(means).astype(np.uint8).reshape(2, 2, 3)).convert("YCbCr").tobytes()


def _halves(values: npt.NDArray[Any], count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return both halves; what is in the middle belongs to either."""
    return values[: (count + 1) // 2], values[count // 2 :]
