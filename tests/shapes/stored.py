"""Pictures of captions as the download step stores them."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from shapes import pictures
from shapes.captions import Caption


def as_stored(caption: Caption) -> pictures.Pixels:
    """Return a caption's picture, (64, 64, 3): drawn at the web's size, shrunk by area, a JPEG of quality 95."""
    size = (pictures.MODEL_SIZE_PX, pictures.MODEL_SIZE_PX)
    picture = Image.fromarray(pictures.draw(caption)).resize(size, Image.Resampling.BOX)
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=95)
    return np.asarray(Image.open(stored).convert("RGB"))


def load(captions: Sequence[Caption]) -> torch.Tensor:
    """Return stored pictures, (N, 3, 64, 64), uint8."""
    return torch.from_numpy(np.stack([as_stored(caption) for caption in captions])).permute(0, 3, 1, 2).contiguous()
