"""The prompts of an evaluation: held-out captions, each with the seed of its picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from steps.errors import StepError

MIN_SAMPLES: Final = 8
# torch's CPU generator uses the low 32 bits of its seed.
SEEDS: Final = 2**32


@dataclass(frozen=True)
class Prompt:
    """One picture to generate."""

    index: int
    """Number of the picture, from 0."""
    caption: str
    """What it shows."""
    seed: int
    """Of its first noise: the same seed gives the same picture in any batch."""
    reference_row: int
    """Where among the reference pictures the real one of this caption is."""


def choose_prompts(captions: Sequence[str], samples: int, seed: int) -> list[Prompt]:
    """Draw `samples` of the held-out captions, without repetition; all of them where there are fewer.

    The order is shuffled by the seed, so that a smaller sample is a part of a larger one, and no sorted table
    decides what is judged. Raises StepError where there are too few captions for a distance to mean anything.
    """
    fewest = min(samples, MIN_SAMPLES)
    if len(captions) < fewest:
        raise StepError(
            f"reference: {len(captions)} held-out captions, at least {fewest} are needed; "
            "raise encode.heldout_fraction or max_heldout_samples"
        )
    rows = np.random.default_rng(seed).permutation(len(captions))[:samples]
    return [Prompt(index, captions[row], picture_seed(seed, index), row) for index, row in enumerate(rows.tolist())]


def picture_seed(seed: int, index: int) -> int:
    """Return the seed of picture `index`: distinct for all indices, and in another range for another `seed`."""
    start = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big")
    return (start + index) % SEEDS


def batches(prompts: Sequence[Prompt], batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[list[Prompt]]:
    """Yield the batches of one worker: every `world_size`-th batch, so that batches are the same for any number."""
    for start in range(rank * batch_size, len(prompts), world_size * batch_size):
        yield list(prompts[start : start + batch_size])
