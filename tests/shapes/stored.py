"""Pictures of captions as the download step stores them, and captions as the small captioner writes them."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from shapes import pictures
from shapes.captions import PLACES, Caption

# Where a picture is empty, by the place of its shape.
OPPOSITES = ("at the bottom", "at the top", "on the right", "on the left", "at the edges")
EMPTY = dict(zip(PLACES, OPPOSITES, strict=True))


def as_stored(caption: Caption) -> pictures.Pixels:
    """Return a caption's picture, (64, 64, 3): drawn at the web's size, shrunk by area, a JPEG of quality 95."""
    picture = Image.fromarray(pictures.draw(caption)).resize((64, 64), Image.Resampling.BOX)
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=95)
    return np.asarray(Image.open(stored).convert("RGB"))


def load(captions: Sequence[Caption]) -> torch.Tensor:
    """Return stored pictures, (N, 3, 64, 64), uint8."""
    return torch.from_numpy(np.stack([as_stored(caption) for caption in captions])).permute(0, 3, 1, 2).contiguous()


def long_text(of: Caption) -> str:
    """Return a caption as the small captioner was taught to write it."""
    facts = f"on a {of.background} background {of.place} a {of.size} {of.colour} {of.shape}"
    return f"{facts}. the {of.shape} is plain and {of.size}, and {EMPTY[of.place]} all is {of.background}."
