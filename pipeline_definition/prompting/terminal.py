"""A picture in the terminal: two pixels for each character, in 24-bit colour.

Reads the variables that terminals set about themselves; returns text to print.
"""

import io
from collections.abc import Mapping
from typing import Final

import numpy as np
from PIL import Image

UPPER_HALF: Final = "▀"
RESET: Final = "\x1b[0m"


def has_colours(environment: Mapping[str, str]) -> bool:
    return environment.get("TERM", "") not in ("", "dumb") and "NO_COLOR" not in environment


def rendered(content: bytes, columns: int) -> str:
    """Return a picture file as text: the upper pixel's colour before each character, the lower one's behind it."""
    with Image.open(io.BytesIO(content)) as picture:
        image = picture.convert("RGB")
    width = min(columns, image.width)
    height = 2 * max(1, round(image.height * width / image.width / 2))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    cell = "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m" + UPPER_HALF
    pairs = np.concatenate([pixels[::2], pixels[1::2]], axis=2).tolist()
    return "".join("".join(cell.format(*pair) for pair in line) + RESET + "\n" for line in pairs)
