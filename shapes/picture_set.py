"""The pictures that the small models are trained on, as the download step would store them.

Reads nothing, writes nothing: each caption is drawn at the web's size, saved as the web has it, shrunk to the models'
size by area, and saved as the JPEG of quality 95 that img2dataset makes. So the models see the very artefacts that
they meet in a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shapes import pictures
from shapes.captions import Caption

STORED_QUALITY: Final = 95


def as_stored(caption: Caption) -> pictures.Pixels:
    """Return the picture of a caption after the download step, (64, 64, 3), RGB in 0..255."""
    size = (pictures.MODEL_SIZE_PX, pictures.MODEL_SIZE_PX)
    picture = Image.fromarray(pictures.draw(caption)).resize(size, Image.Resampling.BOX)
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=STORED_QUALITY)
    return np.asarray(Image.open(stored).convert("RGB"))


def load(captions: Sequence[Caption]) -> Tensor:
    """Return the stored pictures of captions, (N, 3, 64, 64), uint8."""
    stacked = np.stack([as_stored(caption) for caption in captions])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def to_models(pixels: Tensor) -> Tensor:
    """Return pictures of 0..255 as the models take them: float32 in -1..1."""
    return pixels.float() / 127.5 - 1.0


def to_pixels(pictures_out: Tensor) -> Tensor:
    """Return pictures of -1..1 as uint8, out-of-range values clamped."""
    return ((pictures_out.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
