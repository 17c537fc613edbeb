"""The look of a picture: a hash and a few colours that survive another size, another compression and small changes.

The hash is pHash (the signs of a picture's lowest frequencies) as imagehash computes it. It sees shades of grey alone,
so the colours are compared as well: a red and a blue shirt have the same hash. Both are taken from what is seen:
upright, in sRGB, and what is transparent on white.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageOps

MAX_PIXELS: Final = 100_000_000
HASH_SIZE: Final = (32, 32)
# A JPEG is decoded at the smallest size that is not below this.
DRAFT_SIZE: Final = (64, 64)
FLAT_LEVELS: Final = 4
"""Of 255: what differs less than this from its lightest to its darkest spot has no shape to tell it by."""
COLOURS: Final = 4
COLOUR_BYTES: Final = 3 * COLOURS
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


def perceptual_hash(picture: Image.Image) -> int | None:
    """Return 64 bits of a decoded picture; None where it is flat, since all flat pictures have the same."""
    # scipy and wavelets: a second that only those pay who ask for hashes.
    import imagehash

    grey = picture.convert("L").resize(HASH_SIZE, Image.Resampling.LANCZOS)
    darkest, lightest = grey.getextrema()
    return int(str(imagehash.phash(grey)), 16) if lightest - darkest >= FLAT_LEVELS else None  # type: ignore[operator]


def colour_layout(picture: Image.Image) -> bytes:
    """Return the mean colours of the picture's quarters, row by row: Y, Cb and Cr of each, a byte each."""
    return picture.convert("RGB").resize((2, 2), Image.Resampling.BOX).convert("YCbCr").tobytes()


def shown_picture(content: bytes) -> Image.Image | None:
    """Return a picture upright and on white, large enough for its look; None where it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            picture.draft("RGB", DRAFT_SIZE)
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            return Image.alpha_composite(white, upright).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
