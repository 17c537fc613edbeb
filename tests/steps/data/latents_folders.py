"""Small latents artifacts for tests: every row's content tells which row it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from params.layout import HELDOUT_SPLIT, LATENTS_INDEX_FILE, LATENTS_SHARD_PATTERN, MANIFEST_FILE, TRAIN_SPLIT
from steps.data.block import Array, to_bytes
from steps.data.latents_manifest import LatentsIndex, LatentsManifest
from steps.data.latents_shard import BuiltShard, build_shard

LATENT_SHAPE = (4, 2, 2)
CAPTION_LENGTH = 6
EMBEDDING_WIDTH = 3


def tensors_of(rows: range, embeddings: bool = False) -> dict[str, Array]:
    """Return the tensors of rows: mean is the row's number modulo 1,000, token ids hold it whole."""
    numbers = np.array(rows, dtype=np.int64)
    shape = (len(rows), *LATENT_SHAPE)
    mean = np.broadcast_to((numbers % 1000)[:, None, None, None], shape).astype(np.float16)
    token_ids = (numbers[:, None] + np.arange(CAPTION_LENGTH)).astype(np.int32)
    tensors: dict[str, Array] = {"mean": mean, "std": (mean / 8).astype(np.float16), "token_ids": token_ids}
    if embeddings:
        values = np.broadcast_to((numbers % 100)[:, None, None], (len(rows), CAPTION_LENGTH, EMBEDDING_WIDTH))
        tensors["embeddings"] = values.astype(np.float16)
    return tensors


def write_latents(
    folder: Path,
    shards: Mapping[str, Sequence[Sequence[int]]] | None = None,
    embeddings: bool = False,
) -> Path:
    """Write an artifact; `shards` gives, for each split, the rows of each block of each shard."""
    layout = {TRAIN_SPLIT: [[8, 8, 8], [8, 8, 5]], HELDOUT_SPLIT: [[8, 3]]} if shards is None else shards
    folder.mkdir(parents=True, exist_ok=True)
    built: list[BuiltShard] = []
    for split, sizes in layout.items():
        first = 0
        for number, block_rows in enumerate(sizes):
            blocks = []
            for rows in block_rows:
                blocks.append(to_bytes(tensors_of(range(first, first + rows), embeddings)))
                first += rows
            name = LATENTS_SHARD_PATTERN.format(split=split, index=number)
            content, shard = build_shard(name, split, blocks)
            (folder / name).write_bytes(content)
            built.append(shard)
    counts = {split: sum(map(sum, sizes)) for split, sizes in layout.items()}
    index = LatentsIndex(shards=tuple(shard.indexed for shard in built))
    (folder / LATENTS_INDEX_FILE).write_text(index.model_dump_json())
    (folder / MANIFEST_FILE).write_text(manifest(built, counts, embeddings).model_dump_json())
    return folder


def manifest(built: Sequence[BuiltShard], counts: Mapping[str, int], embeddings: bool) -> LatentsManifest:
    """Return the manifest of what `write_latents` writes."""
    return LatentsManifest(
        plan_digest="p" * 64,
        encoder_digest="e" * 64,
        tokenizer_digest="t" * 64,
        text_encoder_digest="x" * 64,
        source_manifest_digest="s" * 64,
        resolution_px=16,
        latent_shape=LATENT_SHAPE,
        scaling_factor=0.5,
        caption_length=CAPTION_LENGTH,
        caption_embeddings=embeddings,
        embedding_width=EMBEDDING_WIDTH,
        precision="float32",
        rows_per_block=8,
        counts=dict(counts),
        dropped_heldout_samples=0,
        latents_mean=0.0,
        latents_std=2.0,
        channel_means=(0.0,) * 4,
        channel_stds=(2.0,) * 4,
        decoded_psnr_db=30.0,
        shards=tuple(shard.listed for shard in built),
    )
