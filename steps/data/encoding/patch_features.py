"""A vision model's features of pictures: over a grid of cells, which training aligns a block with, and of the whole.

Reads <evaluator>/NAME/{config.json,model.safetensors,preprocessor_config.json} as transformers saves them: DINOv2
(Oquab et al. 2023, arXiv:2304.07193), or any other model of square patches, such as one half of a CLIP.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from steps.errors import StepError
from steps.model.json_object import read_object
from steps.model.pretrained import load_part

# Rows and columns of the colours in a descriptor.
GRID: Final = 8


class PatchFeatures:
    """One vision model, in float32, and how it wants pictures."""

    def __init__(self, folder: Path, side: int, device: torch.device, setting: str = "encode.features") -> None:
        """Load the model, to average over `side` x `side` cells. Raises StepError where the folder is not one."""
        self._name, self._side, self._device = f"{setting} {folder.name}", side, device
        wanted = read_object(folder / "preprocessor_config.json")
        model: Any = load_part("transformers", "AutoModel", folder, torch.float32)
        self._model = getattr(model, "vision_model", model).eval().to(device)
        try:
            size = wanted["crop_size"] if wanted.get("do_center_crop") else wanted["size"]
            self._side_px = int(next(iter(size.values())) if isinstance(size, dict) else size)
            self._patches = self._side_px // int(self._model.config.patch_size)
            tables = (torch.tensor(wanted[name], device=device)[:, None, None] for name in ("image_mean", "image_std"))
            self._mean, self._std = tables
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StepError(f"{self._name}: no vision model of square patches: {error!r}") from None

    @torch.inference_mode()
    def of(self, pictures: Tensor) -> Tensor:
        """Return features, [n, side, side, width] float16 in CPU memory, of pictures [n, 3, H, W] in [-1, 1].

        The model sees whole pictures as squares, so that a cell is the same part of a picture of any shape; what stands
        before the patches is left out. Raises StepError for features too large for float16.
        """
        patches = self._seen(pictures).last_hidden_state[:, -(self._patches**2) :]
        patches = patches.unflatten(1, (self._patches, self._patches)).permute(0, 3, 1, 2)
        return self._stored(functional.adaptive_avg_pool2d(patches, self._side).permute(0, 2, 3, 1))

    @torch.inference_mode()
    def describe(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Return one vector of length 1, float16, for the middle of each picture, [n, H, W, 3]: [n, width + 192].

        Half of it is what the model holds of the whole picture, the other half its colours on a grid of 8 x 8. The
        first alone takes pictures of the same things for copies, the second alone those with the same background.
        """
        side = min(pixels.shape[1:3])
        top, left = ((length - side) // 2 for length in pixels.shape[1:3])
        squares = torch.from_numpy(pixels[:, top : top + side, left : left + side].copy()).to(self._device)
        pictures = squares.permute(0, 3, 1, 2).float() / 127.5 - 1
        colours = functional.adaptive_avg_pool2d(pictures, GRID)
        parts = self._seen(pictures).pooler_output, (colours - colours.mean((2, 3), keepdim=True)).flatten(1)
        return self._stored(torch.cat([functional.normalize(part, dim=1) for part in parts], dim=1) / 2**0.5)

    def _seen(self, pictures: Tensor) -> Any:
        sides = (self._side_px, self._side_px)
        resized = functional.interpolate(pictures.float(), sides, mode="bicubic", antialias=True).clamp(-1, 1)
        return self._model((resized / 2 + 0.5 - self._mean) / self._std)

    def _stored(self, features: Tensor) -> Tensor:
        features = features.to("cpu", torch.float16).contiguous()
        if not features.isfinite().all():
            raise StepError(f"{self._name}: not finite in float16; take another model")
        return features
