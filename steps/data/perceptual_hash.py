"""The look of a picture: a hash and a few colours that survive another size, another compression and small changes.

The hash is pHash (the signs of a picture's lowest frequencies) as imagehash computes it. It sees shades of grey alone,
so the colours are compared as well: a red and a blue shirt have the same hash. Both are taken from what is seen:
upright, in sRGB, and what is transparent on white.
"""

from __future__ import annotations

from typing import Final

from PIL import Image

HASH_SIZE: Final = (32, 32)
REDUCING_GAP: Final = 2.0
"""Shrunk by whole factors to twice the size first: five times faster, and at most 2 of 64 bits fall otherwise."""
FLAT_LEVELS: Final = 4
"""Of 255: what differs less than this from its lightest to its darkest spot has no shape to tell it by."""
COLOURS: Final = 4
COLOUR_BYTES: Final = 3 * COLOURS


def perceptual_hash(picture: Image.Image) -> int | None:
    """Return 64 bits of a decoded picture; None where it is flat, since all flat pictures have the same."""
    # scipy and wavelets: a second that only workers pay.
    import imagehash

    grey = picture.convert("L").resize(HASH_SIZE, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    darkest, lightest = grey.getextrema()
    return int(str(imagehash.phash(grey)), 16) if lightest - darkest >= FLAT_LEVELS else None  # type: ignore[operator]


def colour_layout(picture: Image.Image) -> bytes:
    """Return the mean colours of the picture's quarters, row by row: Y, Cb and Cr of each, a byte each."""
    return picture.convert("RGB").resize((2, 2), Image.Resampling.BOX, reducing_gap=1.0).convert("YCbCr").tobytes()
