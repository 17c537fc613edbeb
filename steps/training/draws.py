"""Everything random in training: a pure function of (seed, position in the training stream).

Each position has a stream of its own in numpy's counter-based Philox generator (Salmon et al. 2011): the seed is the
key and the position a word of the counter, so any rank can draw any position, in any order, at any time. The order
within a stream is fixed: timestep, dropped caption, noise of the posterior, noise of the diffusion, offset noise.
A new version of numpy may draw other normal numbers (NEP 19): the model's lineage records the versions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

# Each purpose has its own streams.
TRAINING: Final = 0
VALIDATION: Final = 1
ENCODERS: Final = 2
ROUTES: Final = 3
CAPTIONS: Final = 4


@dataclass(frozen=True)
class Draws:
    """The random numbers of a few samples, in CPU memory."""

    timestep: Tensor
    """[n] float64, uniform in [0, 1): which timestep."""
    caption: Tensor
    """[n] float64, uniform in [0, 1): below the dropout the caption is dropped."""
    posterior: Tensor
    """[n, C, H, W] float32, normal: which latent of the VAE's posterior."""
    noise: Tensor
    """[n, C, H, W] float32, normal: the noise that the model learns to remove."""
    offset: Tensor
    """[n, C, 1, 1] float32, normal: offset noise, one value per channel."""


def draw_kept(seed: int, positions: Sequence[int], encoders: int, dropout: float) -> Tensor:
    """Return which text encoders are kept, [n, encoders] bool, from streams of their own: `draw` stays as it is."""
    kept = torch.ones((len(positions), encoders), dtype=torch.bool)
    for row, position in enumerate(positions if dropout else ()):
        kept[row] = torch.from_numpy(_stream(seed, position, ENCODERS).random(encoders) >= dropout)
    return kept


def draw_routes(seed: int, positions: Sequence[int], tokens: int, kept: int) -> Tensor:
    """Return which of a picture's tokens skip no block, ascending, for the samples at `positions`: [n, kept] int64."""
    routes = np.empty((len(positions), kept), np.int64)
    for row, position in enumerate(positions if kept else ()):
        routes[row] = np.sort(_stream(seed, position, ROUTES).permutation(tokens)[:kept])
    return torch.from_numpy(routes)


def draw_written(seed: int, positions: Sequence[int], share: float) -> Tensor:
    """Return which of the samples at `positions` get the written caption, [n] bool, from streams of their own too."""
    drawn = [_stream(seed, position, CAPTIONS).random() < share for position in positions]
    return torch.tensor(drawn, dtype=torch.bool)


def draw(
    seed: int,
    positions: Sequence[int],
    latent_shape: tuple[int, int, int],
    purpose: int = TRAINING,
    pin_memory: bool = False,
) -> Draws:
    """Return the random numbers of the samples at `positions`, for latents of shape (C, H, W)."""
    uniform = torch.empty((len(positions), 2), dtype=torch.float64)
    # Separate tensors, not slices of one: only whole pinned tensors are copied asynchronously.
    shapes = (latent_shape, latent_shape, (latent_shape[0], 1, 1))
    normal = [torch.empty((len(positions), *shape), dtype=torch.float32, pin_memory=pin_memory) for shape in shapes]
    uniform_rows, normal_rows = uniform.numpy(), [tensor.numpy() for tensor in normal]
    for row, position in enumerate(positions):
        generator = _stream(seed, position, purpose)
        generator.random(out=uniform_rows[row])
        for rows in normal_rows:
            generator.standard_normal(dtype=np.float32, out=rows[row])
    return Draws(uniform[:, 0], uniform[:, 1], *normal)


def _stream(seed: int, position: int, purpose: int) -> np.random.Generator:
    """Return the numbers that a position has for one purpose, from their beginning."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, position, purpose]))
