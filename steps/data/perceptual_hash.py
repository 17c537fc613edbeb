"""The perceptual hash of a picture: 64 bits that survive another size, another compression and small changes.

pHash (the signs of a picture's lowest frequencies) as imagehash computes it; about a millisecond a picture.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

MAX_PIXELS: Final = 100_000_000
# A JPEG is decoded at the smallest size that is not below this: a hash looks at 32 x 32.
DRAFT_SIZE: Final = (64, 64)
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


def perceptual_hash(content: bytes) -> int | None:
    """Return the hash of a picture's bytes; None where they cannot be decoded."""
    # scipy and wavelets: a second that only those pay who ask for hashes.
    import imagehash

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            picture.draft("L", DRAFT_SIZE)
            return int(str(imagehash.phash(picture)), 16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
