"""The samples that every loader reads: moments and token ids; with embeddings, or of half a picture, as other kinds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from steps.data.latents.block import Array

CAPTION_LENGTH = 77
EMBEDDING_WIDTH = 1024
_PATTERN_BYTES = 1 << 24


@dataclass(frozen=True)
class Kind:
    name: str
    latent_shape: tuple[int, int, int]
    embeddings: bool
    rival_samples: int
    """Samples in formats with one record each: far beyond the CPU's caches, yet quick to write."""
    rows_per_block: int
    """Rows of some 5 MB."""
    rows_per_shard: int
    shards: int = 8

    @property
    def samples(self) -> int:
        return self.shards * self.rows_per_shard

    def scaled(self, scale: float) -> Kind:
        shards, rivals = max(2, round(self.shards * scale)), max(512, round(self.rival_samples * scale))
        return replace(self, shards=shards, rival_samples=rivals)

    @property
    def sample_bytes(self) -> int:
        embeddings = 2 * CAPTION_LENGTH * EMBEDDING_WIDTH if self.embeddings else 0
        return 2 * 2 * math.prod(self.latent_shape) + 4 * CAPTION_LENGTH + embeddings


KINDS = (
    Kind("tokens", (4, 32, 32), False, rival_samples=8_192, rows_per_block=256, rows_per_shard=8_192),
    Kind("embeddings", (4, 32, 32), True, rival_samples=2_048, rows_per_block=32, rows_per_shard=512),
    # Pictures of 256 x 128 px: as many bytes as a latent of 256 px has without its standard deviation.
    Kind("half_tokens", (4, 32, 16), False, rival_samples=16_384, rows_per_block=512, rows_per_shard=16_384),
)


def tensors(kind: Kind, first: int, rows: int) -> dict[str, Array]:
    """Return the tensors of rows [first, first + rows): bytes that do not compress, token ids that name the row."""
    arrays: dict[str, Array] = {
        "mean": _noise((rows, *kind.latent_shape), first),
        "std": _noise((rows, *kind.latent_shape), first + 7),
        "token_ids": np.arange(first, first + rows, dtype=np.int32)[:, None] + np.zeros(CAPTION_LENGTH, np.int32),
    }
    if kind.embeddings:
        arrays["embeddings"] = _noise((rows, CAPTION_LENGTH, EMBEDDING_WIDTH), first + 13)
    return arrays


def _noise(shape: tuple[int, ...], seed: int) -> Array:
    """Return float16 numbers cut from a fixed pattern, since drawing gigabytes would take longer than reading them."""
    count = int(np.prod(shape))
    start = (seed * 7919) % (len(_PATTERN) - 1)
    return np.take(_PATTERN, np.arange(start, start + count), mode="wrap").reshape(shape)


_PATTERN = np.random.default_rng(0).standard_normal(_PATTERN_BYTES // 2, dtype=np.float32).astype(np.float16)
