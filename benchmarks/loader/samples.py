"""The samples that every loader reads: moments of 256 px pictures, token ids and, as another kind, embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steps.data.block import Array

LATENT_SHAPE = (4, 32, 32)
CAPTION_LENGTH = 77
EMBEDDING_WIDTH = 1024
_PATTERN_BYTES = 1 << 24


@dataclass(frozen=True)
class Kind:
    """One kind of sample, and how many of them there are."""

    name: str
    embeddings: bool
    samples: int
    """In our shards."""
    rival_samples: int
    """In formats with one record for each sample: far beyond the CPU's caches, and quicker to write."""
    rows_per_block: int
    rows_per_shard: int
    sample_bytes: int


def kind(name: str, scale: float = 1.0) -> Kind:
    """Return `tokens` or `embeddings`; `scale` shrinks the number of samples."""
    embeddings = name == "embeddings"
    latents, tokens = 2 * 2 * int(np.prod(LATENT_SHAPE)), 4 * CAPTION_LENGTH
    size = latents + tokens + (2 * CAPTION_LENGTH * EMBEDDING_WIDTH if embeddings else 0)
    # Blocks of some 5 MB in both.
    rows_per_block, shards, rows_per_shard, rivals = (32, 8, 512, 2048) if embeddings else (256, 8, 8192, 8192)
    shards = max(2, round(shards * scale))
    return Kind(
        name=name,
        embeddings=embeddings,
        samples=shards * rows_per_shard,
        rival_samples=max(512, round(rivals * scale)),
        rows_per_block=rows_per_block,
        rows_per_shard=rows_per_shard,
        sample_bytes=size,
    )


def tensors(of: Kind, first: int, rows: int) -> dict[str, Array]:
    """Return the tensors of rows [first, first + rows): bytes that do not compress, token ids that name the row."""
    found: dict[str, Array] = {
        "mean": _noise((rows, *LATENT_SHAPE), first),
        "std": _noise((rows, *LATENT_SHAPE), first + 7),
        "token_ids": np.arange(first, first + rows, dtype=np.int32)[:, None] + np.zeros(CAPTION_LENGTH, np.int32),
    }
    if of.embeddings:
        found["embeddings"] = _noise((rows, CAPTION_LENGTH, EMBEDDING_WIDTH), first + 13)
    return found


def _noise(shape: tuple[int, ...], seed: int) -> Array:
    """Return float16 numbers cut from a fixed pattern, since drawing gigabytes would take longer than the reading."""
    count = int(np.prod(shape))
    start = (seed * 7919) % (len(_PATTERN) - 1)
    return np.take(_PATTERN, np.arange(start, start + count), mode="wrap").reshape(shape)


_PATTERN = np.random.default_rng(0).standard_normal(_PATTERN_BYTES // 2, dtype=np.float32).astype(np.float16)
