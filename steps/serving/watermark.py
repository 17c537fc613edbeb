"""The invisible mark of a generated picture: 32 bits in its brightness that JPEG and scaling leave there.

The bits are coded into blocks by invisible-watermark's dwtDctSvd, as Stable Diffusion's own scripts do, on the means of
a fixed grid of cells and not on the pixels: a picture of another size has the same grid, and what happens within a cell
does not count. docs/serving.md says what the mark survives.
"""

from typing import Any, Final

import numpy as np
from PIL import Image

MARK: Final = np.unpackbits(np.frombuffer(b"SDPL", np.uint8)).tolist()
# Unmarked pictures have half of the bits; as many as this by chance: one of 50,000.
LEAST_BITS: Final = 28
MIN_SIDE_PX: Final = 64
# To what the largest singular value of a block of 4 x 4 cells is rounded: cells change by at most an eighth of it.
STEP: Final = 20.0
# Cells at each side; the fewer where the picture has no more than 2 pixels for each.
CELLS: Final = (64, 32)
# What is darker or lighter cannot be changed in both directions.
LEVELS: Final = (8.0, 247.0)
_LUMA: Final = np.array((0.299, 0.587, 0.114), np.float32)


def mark(image: Image.Image) -> Image.Image:
    """Return a picture with the mark; below 64 pixels there is no place for it, and the picture itself comes back."""
    if min(image.size) < MIN_SIDE_PX:
        return image
    cells = _cells(image, CELLS[0] if min(image.size) >= 2 * CELLS[0] else CELLS[1])
    marked = cells.clip(*LEVELS)
    _coder(MARK).encode_frame(marked, STEP)
    change = Image.fromarray((marked - cells).astype(np.float32)).resize(image.size, Image.Resampling.NEAREST)
    pixels = np.asarray(image, np.float32) + np.asarray(change)[..., None]
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def bits_found(image: Image.Image) -> int:
    """Return how many of the mark's 32 bits a picture shows, of whatever size it was made or is now."""
    grids = [_cells(image.convert("RGB"), side) for side in CELLS]
    votes = [_coder([]).decode_frame(grid, STEP, [[] for _ in MARK]) for grid in grids]
    return max(sum(bool(np.mean(of) > 0.5) == bit for of, bit in zip(one, MARK, strict=True)) for one in votes)


def _cells(image: Image.Image, side: int) -> Any:
    luma = Image.fromarray(np.asarray(image, np.float32) @ _LUMA)
    return np.asarray(luma.resize((side, side), Image.Resampling.BOX), np.float64)


def _coder(bits: list[int]) -> Any:
    # It imports torch.
    from imwatermark.dwtDctSvd import EmbedDwtDctSvd

    return EmbedDwtDctSvd(bits, len(MARK))
