"""One comparison: the same model, resolution, batch and device for all who take part."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

# Takes one optimizer step.
Step = Callable[[], None]


@dataclass(frozen=True)
class Task:
    pretrained: Path
    """Folder as diffusers saves it."""
    pictures: Path
    """JPEG files and captions."""
    latents: Path
    """The same, as Encode leaves them."""
    resolution_px: int
    batch_size: int
    precision: str
    """bfloat16 or float32, of the forward pass."""
    device: torch.device
    workers: int
    """Loader processes of the script."""
    compile: bool
    """Whether ours is compiled."""
    cuda_graphs: bool
    """Whether it is then replayed as CUDA graphs."""


# Builds everything anew, and lets it go afterwards: no one's memory is in another's way.
Contender = Callable[[Task], AbstractContextManager[Step]]
