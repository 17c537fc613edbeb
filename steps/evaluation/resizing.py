"""How pictures are brought to the size that a network takes: the conventions, each under the name of who set it.

They differ by grey levels where pictures are reduced, and so do the FIDs: Parmar et al. 2022, arXiv:2104.11222.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

Resize = Callable[[Tensor, int], Tensor]
"""Pictures, (N, 3, H, W) uint8, and a side, to (N, 3, side, side) float in 0..255."""

CLIP_OWN: Final = "the CLIP's own preprocessor_config.json"


def torchmetrics(pictures: Tensor, side_px: int) -> Tensor:
    """Bilinear with anti-aliasing."""
    return _interpolated(pictures, side_px, "bilinear", antialias=True)


def pytorch_fid(pictures: Tensor, side_px: int) -> Tensor:
    """Bilinear without anti-aliasing, as most published FIDs; white is 256, since pytorch-fid scales by 127.5."""
    return _interpolated(pictures, side_px, "bilinear") * 256 / 255


def cmmd(pictures: Tensor, side_px: int) -> Tensor:
    """Bicubic without anti-aliasing."""
    return _interpolated(pictures, side_px, "bicubic")


def clean_fid(pictures: Tensor, side_px: int) -> Tensor:
    """Pillow's bicubic, which has anti-aliasing, of each channel in floats: nothing is rounded or cut off."""
    channels = pictures.flatten(0, 1).cpu().numpy().astype(np.float32)
    size = (side_px, side_px)
    resized = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in channels]
    return torch.from_numpy(np.stack(resized)).reshape(len(pictures), 3, *size).to(pictures.device)


def _interpolated(pictures: Tensor, side_px: int, mode: str, antialias: bool = False) -> Tensor:
    size = (side_px, side_px)
    return functional.interpolate(pictures.float(), size=size, mode=mode, align_corners=False, antialias=antialias)
