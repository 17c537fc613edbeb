"""The prompts of an evaluation: captions, each with the seed of its picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from steps.errors import StepError
from steps.evaluation.captions import SEEDS, Captions

MIN_SAMPLES: Final = 8
_HELD_OUT: Final = ("reference: {} held-out captions", "raise encode.heldout_fraction or max_heldout_samples")
_FROM_A_FILE: Final = ("captions: {} in the file", "take a longer one")


@dataclass(frozen=True)
class Prompt:
    """One picture to generate."""

    index: int
    """Number of the picture, from 0."""
    caption: str
    seed: int
    """Seed of its initial noise: the same seed gives the same picture in any batch."""
    reference_row: int | None
    """Row of the reference with this caption's real picture, if any."""


def choose_prompts(captions: Captions, samples: int, seed: int) -> list[Prompt]:
    """Draw `samples` of the captions, without repetition; all of them where there are fewer.

    The seed decides the order, so that a smaller sample is the beginning of a larger one, and a sorted table does not
    bias the sample. Raises StepError if there are too few captions for a meaningful distance.
    """
    count = len(captions.texts)
    fewest = min(samples, MIN_SAMPLES)
    if count < fewest:
        source, fix = _HELD_OUT if captions.is_heldout else _FROM_A_FILE
        raise StepError(f"{source.format(count)}, at least {fewest} are needed; {fix}")
    rows = np.random.default_rng(seed).permutation(count)[:samples].tolist()
    seeds = captions.seeds
    return [
        Prompt(index, captions.texts[row], seeds[row] if seeds else picture_seed(seed, index), captions.real_rows[row])
        for index, row in enumerate(rows)
    ]


def picture_seed(seed: int, index: int) -> int:
    """Return the seed of picture `index`: distinct for all indices, and in another range for another `seed`."""
    start = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big")
    return (start + index) % SEEDS


def batches(prompts: Sequence[Prompt], batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[list[Prompt]]:
    """Yield the batches of one worker: every `world_size`-th one, so their content is the same for any number."""
    for start in range(rank * batch_size, len(prompts), world_size * batch_size):
        yield list(prompts[start : start + batch_size])
