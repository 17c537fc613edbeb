"""Small latents artifacts for tests: every row's content tells which row it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from params.layout import HELDOUT_SPLIT, LATENTS_INDEX_FILE, LATENTS_SHARD_PATTERN, MANIFEST_FILE, TRAIN_SPLIT
from steps.data.latents.block import Array, to_bytes
from steps.data.latents.latents_index import index_bytes
from steps.data.latents.latents_manifest import BuiltShard, LatentsBucket, LatentsManifest, build_shard

LATENT_SHAPE = (4, 2, 2)
# Of the buckets, where there are some.
BUCKET_SHAPES = ((4, 3, 1), (4, 2, 2), (4, 1, 4))
CAPTION_LENGTH = 6
EMBEDDING_WIDTH = 3


def tensors_of(
    rows: range, embeddings: bool = False, latent_shape: tuple[int, int, int] = LATENT_SHAPE
) -> dict[str, Array]:
    """Return the tensors of rows: mean is the row's number modulo 1,000, token ids hold it whole."""
    numbers = np.array(rows, dtype=np.int64)
    shape = (len(rows), *latent_shape)
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
    buckets: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write an artifact; `shards` gives, for each split, the rows of each block of each shard.

    `buckets` gives, for each split, the bucket of each shard: each has a shape of BUCKET_SHAPES.
    """
    layout = {TRAIN_SPLIT: [[8, 8, 8], [8, 8, 5]], HELDOUT_SPLIT: [[8, 3]]} if shards is None else shards
    folder.mkdir(parents=True, exist_ok=True)
    built: list[BuiltShard] = []
    for split, sizes in layout.items():
        first = 0
        for number, block_rows in enumerate(sizes):
            blocks, bucket = [], buckets[split][number] if buckets else 0
            shape = BUCKET_SHAPES[bucket] if buckets else LATENT_SHAPE
            for rows in block_rows:
                blocks.append(to_bytes(tensors_of(range(first, first + rows), embeddings, shape)))
                first += rows
            name = LATENTS_SHARD_PATTERN.format(split=split, index=number)
            content, shard = build_shard(name, split, blocks, bucket)
            (folder / name).write_bytes(content)
            built.append(shard)
    counts = {split: sum(map(sum, sizes)) for split, sizes in layout.items()}
    (folder / LATENTS_INDEX_FILE).write_bytes(index_bytes(shard.indexed for shard in built))
    made = manifest(built, counts, embeddings)
    if buckets:
        made = made.model_copy(update={"buckets": buckets_of(built, BUCKET_SHAPES)})
    (folder / MANIFEST_FILE).write_text(made.model_dump_json())
    return folder


def buckets_of(built: Sequence[BuiltShard], shapes: Sequence[tuple[int, int, int]]) -> tuple[LatentsBucket, ...]:
    """Return the manifest's buckets of shards, for a VAE that divides sides by 8."""
    return tuple(
        LatentsBucket(
            size_px=(8 * shape[1], 8 * shape[2]),
            latent_shape=shape,
            counts={
                split: sum(s.listed.rows for s in built if (s.listed.split, s.indexed.bucket) == (split, bucket))
                for split in (TRAIN_SPLIT, HELDOUT_SPLIT)
            },
        )
        for bucket, shape in enumerate(shapes)
    )


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
