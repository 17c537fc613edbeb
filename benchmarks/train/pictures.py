"""What is trained on: JPEG files with captions, and the same pictures as cached latents.

Writes <folder>/pictures/*.jpg with captions.json, and <folder>/latents/ as Encode leaves them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from params.layout import (
    HELDOUT_SPLIT,
    LATENTS_INDEX_FILE,
    LATENTS_SHARD_PATTERN,
    MANIFEST_FILE,
    TRAIN_SPLIT,
)
from shapes import captions, pictures
from steps.data.block import Array, to_bytes
from steps.data.latents_manifest import LatentsIndex, LatentsManifest
from steps.data.latents_shard import build_shard
from steps.model.pretrained import folder_digest, load_tokenizer, load_vae

CAPTIONS_FILE: Final = "captions.json"
JPEG_QUALITY: Final = 95
ROWS_PER_BLOCK: Final = 64
ENCODED_AT_ONCE: Final = 4


def write_pictures(folder: Path, resolution_px: int, count: int) -> Path:
    """Write pictures of the local world, stored at the training resolution, as Download stores them."""
    folder.mkdir(parents=True)
    grid = captions.every()
    chosen = [grid[index * 17 % len(grid)] for index in range(count)]
    for index, caption in enumerate(chosen):
        picture = Image.fromarray(pictures.draw(caption, resolution_px))
        picture.save(folder / f"{index:05d}.jpg", quality=JPEG_QUALITY)
    (folder / CAPTIONS_FILE).write_text(json.dumps([caption.text() for caption in chosen]))
    return folder


@torch.no_grad()
def write_latents(folder: Path, source: Path, pretrained: Path, device: torch.device) -> Path:
    """Encode pictures to the artifact that the loader reads; the same rows are held out, too."""
    folder.mkdir(parents=True)
    tokenizer: Any = load_tokenizer(pretrained)
    texts = json.loads((source / CAPTIONS_FILE).read_text())
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="np").input_ids.astype(np.int32)
    vae = load_vae(pretrained, torch.float32).to(device)
    moments = [_moments(vae, batch, device) for batch in _batches(sorted(source.glob("*.jpg")))]
    rows = {
        "mean": np.concatenate([mean for mean, _ in moments]),
        "std": np.concatenate([std for _, std in moments]),
        "token_ids": tokens,
    }
    _write(folder, rows, pretrained, float(vae.config.scaling_factor))
    return folder


def _batches(paths: list[Path]) -> Iterator[torch.Tensor]:
    for first in range(0, len(paths), ENCODED_AT_ONCE):
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths[first : first + ENCODED_AT_ONCE]])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _moments(vae: Any, pixels: torch.Tensor, device: torch.device) -> tuple[Array, Array]:
    posterior = vae.encode(pixels.to(device)).latent_dist
    return posterior.mean.half().cpu().numpy(), posterior.std.half().cpu().numpy()


def _write(folder: Path, rows: dict[str, Array], pretrained: Path, scaling_factor: float) -> None:
    count, shape = len(rows["mean"]), rows["mean"].shape[1:]
    built = []
    for split in (TRAIN_SPLIT, HELDOUT_SPLIT):
        name = LATENTS_SHARD_PATTERN.format(split=split, index=0)
        firsts = range(0, count, ROWS_PER_BLOCK)
        blocks = [
            to_bytes({key: value[first : first + ROWS_PER_BLOCK] for key, value in rows.items()}) for first in firsts
        ]
        content, shard = build_shard(name, split, blocks)
        (folder / name).write_bytes(content)
        built.append(shard)
    (folder / LATENTS_INDEX_FILE).write_text(LatentsIndex(shards=tuple(s.indexed for s in built)).model_dump_json())
    manifest = LatentsManifest(
        plan_digest="benchmark",
        encoder_digest=folder_digest(pretrained / "vae"),
        tokenizer_digest=folder_digest(pretrained / "tokenizer"),
        text_encoder_digest=folder_digest(pretrained / "text_encoder"),
        source_manifest_digest="benchmark",
        resolution_px=8 * shape[-1],
        latent_shape=shape,
        scaling_factor=scaling_factor,
        caption_length=rows["token_ids"].shape[1],
        caption_embeddings=False,
        embedding_width=0,
        precision="float32",
        rows_per_block=ROWS_PER_BLOCK,
        counts={TRAIN_SPLIT: count, HELDOUT_SPLIT: count},
        dropped_heldout_samples=0,
        latents_mean=float(rows["mean"].mean(dtype=np.float64)),
        latents_std=float(rows["mean"].std(dtype=np.float64)),
        channel_means=tuple(rows["mean"].mean((0, 2, 3), dtype=np.float64).tolist()),
        channel_stds=tuple(rows["mean"].std((0, 2, 3), dtype=np.float64).tolist()),
        decoded_psnr_db=math.nan if count == 0 else 0.0,
        shards=tuple(shard.listed for shard in built),
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())
