"""Writes the samples in the format of each loader: our shards, plain WebDataset, MDS of mosaicml-streaming, litdata."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader.samples import CAPTION_LENGTH, EMBEDDING_WIDTH, Kind, tensors
from params.layout import LATENTS_SHARD_PATTERN, TRAIN_SPLIT
from steps.data.latents.block import Array, to_bytes
from steps.data.latents.latents_shard import BuiltShard, build_shard
from steps.training.random_latents import write_listings

_SHARD_SAMPLES = 1024


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
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, kind.rival_samples, _SHARD_SAMPLES)):
        with tarfile.open(folder / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index, sample in _samples(kind, first, min(first + _SHARD_SAMPLES, kind.rival_samples)):
                for name, array in sample.items():
                    stream = io.BytesIO()
                    np.save(stream, array)
                    member = tarfile.TarInfo(f"{index:08d}.{name}.npy")
                    member.size = stream.tell()
                    stream.seek(0)
                    tar.addfile(member, stream)
    return folder


def write_mosaicml(folder: Path, kind: Kind) -> Path:
    """Write MDS shards, as mosaicml-streaming's own writer makes them by default."""
    from streaming import MDSWriter

    latent = f"ndarray:float16:{','.join(map(str, kind.latent_shape))}"
    columns = {"mean": latent, "std": latent, "token_ids": f"ndarray:int32:{CAPTION_LENGTH}"}
    if kind.embeddings:
        columns["embeddings"] = f"ndarray:float16:{CAPTION_LENGTH},{EMBEDDING_WIDTH}"
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for _, sample in _samples(kind, 0, kind.rival_samples):
            writer.write(sample)
    return folder


def write_litdata(folder: Path, kind: Kind) -> Path:
    """Write litdata's chunks of 64 MB, which is what its `optimize` makes by default."""
    from litdata.streaming import Cache

    folder.mkdir(parents=True)
    cache: Any = Cache(str(folder), chunk_bytes="64MB")
    for index, (_, sample) in enumerate(_samples(kind, 0, kind.rival_samples)):
        cache[index] = sample
    cache.done()
    cache.merge()
    return folder


def _samples(kind: Kind, first: int, stop: int) -> Iterator[tuple[int, dict[str, Array]]]:
    for start in range(first, stop, kind.rows_per_block):
        rows = min(kind.rows_per_block, stop - start)
        block = tensors(kind, start, rows)
        for row in range(rows):
            yield start + row, {name: array[row] for name, array in block.items()}
