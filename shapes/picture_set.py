"""What the small models are trained with: the pictures as the download step would store them, and the loop.

Reads nothing, writes nothing: each caption is drawn at the web's size, saved as the web has it, shrunk to the models'
size by area, and saved as the JPEG of quality 95 that img2dataset makes. So the models see the very artefacts that
they meet in a run. The loop is AdamW with a warm-up, then a cosine down to a rate of 0.
"""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from shapes import pictures
from shapes.captions import Caption

STORED_QUALITY: Final = 95
LEARNING_RATE: Final = 1e-3
WARMUP_STEPS: Final = 50
Batch = TypeVar("Batch")


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


def fit(
    model: nn.Module, batches: Iterable[Batch], steps: int, loss_of: Callable[[Batch], Tensor], title: str, **adamw: Any
) -> None:
    """Train a model on the batches of a number of steps, with progress; `adamw` goes to the optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, **adamw)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    bar = tqdm(batches, total=steps, desc=title, unit="it", disable=None)
    for batch in bar:
        loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def rate(step: int, steps: int) -> float:
    """Return the learning rate of a step as a fraction of the highest."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
