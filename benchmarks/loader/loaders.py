"""Each loader: the folder that it reads, and its batches without end, as how many samples are in memory for training.

The samples are moments and token ids, with embeddings as another kind, in our shards and as plain WebDataset.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from params.layout import LATENTS_SHARD_PATTERN, TRAIN_SPLIT
from steps.data.latents.block import Array, to_bytes
from steps.data.latents.latents_shard import BuiltShard, build_shard
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import HELD_BATCHES, PREFETCHED_BATCHES, LatentsLoader, Share
from steps.training.random_latents import write_listings

CAPTION_LENGTH = 77
EMBEDDING_WIDTH = 1024
_PATTERN_BYTES = 1 << 24

_SHARD_SAMPLES = 1024
BATCH = 256
# What a rank holds in memory (some 100 MB) is then far above the CPU's caches and far below the data set.
LANES = 8
_FOREVER = BATCH * 1_000_000_000


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


def write_ours(folder: Path, kind: Kind) -> Path:
    folder.mkdir(parents=True)
    built: list[BuiltShard] = []
    for number, first in enumerate(range(0, kind.samples, kind.rows_per_shard)):
        starts = range(first, min(first + kind.rows_per_shard, kind.samples), kind.rows_per_block)
        blocks = (to_bytes(tensors(kind, start, kind.rows_per_block)) for start in starts)
        name = LATENTS_SHARD_PATTERN.format(split=TRAIN_SPLIT, index=number)
        content, shard = build_shard(name, TRAIN_SPLIT, blocks)
        (folder / name).write_bytes(content)
        built.append(shard)
    write_listing(folder, built, kind)
    return folder


def write_listing(folder: Path, built: Sequence[BuiltShard], kind: Kind) -> None:
    """Write index and manifest of shards of the training split."""
    channels = kind.latent_shape[0]
    write_listings(
        folder,
        built,
        resolution_px=8 * max(kind.latent_shape),
        latent_shape=kind.latent_shape,
        scaling_factor=1.0,
        caption_length=CAPTION_LENGTH,
        caption_embeddings=kind.embeddings,
        embedding_width=EMBEDDING_WIDTH,
        rows_per_block=kind.rows_per_block,
        latents_mean=0.0,
        latents_std=1.0,
        channel_means=(0.0,) * channels,
        channel_stds=(1.0,) * channels,
    )


def write_plain_webdataset(folder: Path, kind: Kind) -> Path:
    """Write tars with an .npy file for each tensor of each sample."""
    import webdataset

    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, kind.rival_samples, _SHARD_SAMPLES)):
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as tar:
            for index, sample in _samples(kind, first, min(first + _SHARD_SAMPLES, kind.rival_samples)):
                tar.write({"__key__": f"{index:08d}"} | {f"{name}.npy": array for name, array in sample.items()})
    return folder


def _samples(kind: Kind, first: int, stop: int) -> Iterator[tuple[int, dict[str, Array]]]:
    for start in range(first, stop, kind.rows_per_block):
        rows = min(kind.rows_per_block, stop - start)
        block = tensors(kind, start, rows)
        for row in range(rows):
            yield start + row, {name: array[row] for name, array in block.items()}


def ours(folder: Path, kind: Kind) -> Iterator[int]:
    """Our loader as training runs it: shuffled, checksums on, read ahead in the background."""
    dataset = LatentsDataset(folder)
    order = dataset.order(TRAIN_SPLIT, 0, BATCH, lanes=LANES)
    for batch in LatentsLoader(dataset, order, Share(0, 1, 0, _FOREVER)):
        yield len(batch.positions)


def pread(folder: Path, kind: Kind) -> Iterator[int]:
    """The machine's ceiling: the bytes of the same blocks, a system call each, into as many batches as are in use."""
    table = LatentsDataset(folder).table(TRAIN_SPLIT)
    files = [os.open(folder / name, os.O_RDONLY) for name in table.names]
    size = int(table.sizes[0])
    count = max(1, (PREFETCHED_BATCHES + HELD_BATCHES) * BATCH // kind.rows_per_block)
    buffers = [np.ones(size, np.uint8) for _ in range(count)]
    reads = 0
    while True:
        for block in np.random.default_rng(reads).permutation(len(table.rows)).tolist():
            os.preadv(files[table.shards[block]], [buffers[reads % len(buffers)]], int(table.offsets[block]))
            reads += 1
            yield kind.rows_per_block


def plain_webdataset(folder: Path, kind: Kind) -> Iterator[int]:
    """WebDataset as its manual shows it, over .npy files: shards in one order, a shuffle buffer, no check."""
    import webdataset

    names = ["mean.npy", "std.npy", "token_ids.npy", *(["embeddings.npy"] if kind.embeddings else [])]
    shards = sorted(map(str, folder.glob("*.tar")))
    stream = webdataset.WebDataset(shards, shardshuffle=False).repeat().shuffle(1000)
    for batch in stream.decode().to_tuple(*names).batched(BATCH):
        yield len(batch[0])
