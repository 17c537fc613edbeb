"""Random latents with a pretrained folder's shapes, to measure speed, which does not depend on the values.

Writes a folder with manifest.json, index.arrow and one shard for each split, as Encode does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from params.families import CONFIG_FILE, VAE
from params.layout import HELDOUT_SPLIT, LATENTS_INDEX_FILE, LATENTS_SHARD_PATTERN, MANIFEST_FILE, TRAIN_SPLIT
from steps.data.latents.block import Array, to_bytes
from steps.data.latents.latents_index import index_bytes
from steps.data.latents.latents_manifest import BuiltShard, LatentsManifest, build_shard
from steps.errors import StepError
from steps.model.families import denoiser_of
from steps.model.json_object import read_object
from steps.model.token_lengths import token_lengths

ROWS_PER_BLOCK: Final = 64
# The digest of latents that no encoder made.
UNKNOWN: Final = "random"
SEED: Final = 0


def write_random_latents(folder: Path, pretrained: Path, resolution_px: int, count: int) -> None:
    """Write `count` rows of square pictures, in both splits. Raises StepError for a side that the VAE cannot divide."""
    vae = read_object(pretrained / VAE / CONFIG_FILE)
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    if resolution_px % factor:
        raise StepError(f"random_latents_px {resolution_px} is no multiple of {factor}, by which the VAE divides it")
    denoiser, side = denoiser_of(pretrained), resolution_px // factor
    shape = (denoiser.config(pretrained)["in_channels"], side, side)
    length = sum(token_lengths(pretrained, denoiser.family).values())
    caption = denoiser.reader(pretrained, length, None).tokens([""]).numpy()
    mean = np.random.default_rng(SEED).standard_normal((count, *shape), dtype=np.float32)
    rows = {
        "mean": mean.astype(np.float16),
        "std": np.full((count, *shape), 0.1, dtype=np.float16),
        "token_ids": caption.repeat(count, axis=0),
    }
    write_rows(folder, rows, resolution_px, float(vae["scaling_factor"]), float(vae.get("shift_factor") or 0.0))


def write_rows(
    folder: Path, rows: Mapping[str, Array], resolution_px: int, scaling_factor: float, shift_factor: float = 0.0
) -> None:
    """Write latents of rows in memory, the same in both splits; their digests say that no encoder made them."""
    folder.mkdir(parents=True, exist_ok=True)
    built = []
    for split in (TRAIN_SPLIT, HELDOUT_SPLIT):
        name = LATENTS_SHARD_PATTERN.format(split=split, index=0)
        pieces = (slice(first, first + ROWS_PER_BLOCK) for first in range(0, len(rows["mean"]), ROWS_PER_BLOCK))
        blocks = [to_bytes({name: values[piece] for name, values in rows.items()}) for piece in pieces]
        content, shard = build_shard(name, split, blocks)
        (folder / name).write_bytes(content)
        built.append(shard)
    mean = rows["mean"].astype(np.float64)
    write_listings(
        folder,
        built,
        latent_shape=rows["mean"].shape[1:],
        caption_length=rows["token_ids"].shape[1],
        features_shape=rows["features"].shape[1:] if "features" in rows else (),
        latents_mean=float(mean.mean()),
        latents_std=float(mean.std()),
        channel_means=tuple(mean.mean((0, 2, 3)).tolist()),
        channel_stds=tuple(mean.std((0, 2, 3)).tolist()),
        resolution_px=resolution_px,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
    )


def write_listings(folder: Path, built: Sequence[BuiltShard], **known: Any) -> None:
    """Write index and manifest of shards that no encoder made; `known` are the manifest's fields that matter."""
    counts: Counter[str] = Counter()
    for shard in built:
        counts[shard.listed.split] += shard.listed.rows
    digests = ("plan_digest", "encoder_digest", "tokenizer_digest", "text_encoder_digest", "source_manifest_digest")
    fields: dict[str, Any] = {
        **dict.fromkeys(digests, UNKNOWN),
        "caption_embeddings": False,
        "embedding_width": 0,
        "precision": "float32",
        "rows_per_block": ROWS_PER_BLOCK,
        "dropped_heldout_samples": 0,
        "decoded_psnr_db": 0.0,
        "counts": dict(counts),
        "shards": tuple(shard.listed for shard in built),
        **known,
    }
    (folder / LATENTS_INDEX_FILE).write_bytes(index_bytes(shard.indexed for shard in built))
    (folder / MANIFEST_FILE).write_text(LatentsManifest(**fields).model_dump_json(), encoding="utf-8")
