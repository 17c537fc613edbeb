"""A vision model's features of pictures, averaged over a grid of cells: what training aligns a block with.

Reads <evaluator>/NAME/{config.json,model.safetensors,preprocessor_config.json} as transformers saves them: DINOv2
(Oquab et al. 2023, arXiv:2304.07193), or any other model of square patches, such as one half of a CLIP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from steps.errors import StepError
from steps.model.json_object import read_object
from steps.model.pretrained import load_part


class PatchFeatures:
    """One vision model, in float32, and how it wants pictures."""

    def __init__(self, folder: Path, side: int, device: torch.device) -> None:
        """Load the model, to average over `side` x `side` cells. Raises StepError where the folder is not one."""
        self._name, self._side, wanted = folder.name, side, read_object(folder / "preprocessor_config.json")
        model: Any = load_part("transformers", "AutoModel", folder, torch.float32)
        self._model = getattr(model, "vision_model", model).eval().to(device)
        try:
            size = wanted["crop_size"] if wanted.get("do_center_crop") else wanted["size"]
            self._side_px = int(next(iter(size.values())) if isinstance(size, dict) else size)
            self._patches = self._side_px // int(self._model.config.patch_size)
            tables = (torch.tensor(wanted[name], device=device)[:, None, None] for name in ("image_mean", "image_std"))
            self._mean, self._std = tables
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StepError(f"encode.features {folder.name}: no vision model of square patches: {error!r}") from None

    @torch.inference_mode()
    def of(self, pictures: Tensor) -> Tensor:
        """Return features, [n, side, side, width] float16 in CPU memory, of pictures [n, 3, H, W] in [-1, 1].

        The model sees whole pictures as squares, so that a cell is the same part of a picture of any shape; what stands
        before the patches is left out. Raises StepError for features too large for float16.
        """
        sides = (self._side_px, self._side_px)
        resized = functional.interpolate(pictures.float(), sides, mode="bicubic", antialias=True).clamp(-1, 1)
        states = self._model((resized / 2 + 0.5 - self._mean) / self._std).last_hidden_state
        patches = states[:, -(self._patches**2) :].unflatten(1, (self._patches, self._patches))
        cells = functional.adaptive_avg_pool2d(patches.permute(0, 3, 1, 2), self._side).permute(0, 2, 3, 1)
        features = cells.to("cpu", torch.float16).contiguous()
        if not features.isfinite().all():
            raise StepError(f"encode.features {self._name}: not finite in float16; take another model")
        return features
