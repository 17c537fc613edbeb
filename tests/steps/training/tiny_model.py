"""A diffusers folder small enough to train in a test, and latents that fit it."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from params.layout import HELDOUT_SPLIT, LATENTS_FORMER_INDEX_FILE, LATENTS_SHARD_PATTERN, MANIFEST_FILE, TRAIN_SPLIT
from steps.data.latents.block import Array, to_bytes
from steps.data.latents.latents_manifest import BuiltShard, LatentsIndex, LatentsManifest, build_shard
from steps.model.digest import encoder_digests, folder_family
from tests.steps.data.latents_folders import buckets_of, manifest

# Typed in parts only.
diffusers: Any = importlib.import_module("diffusers")

LATENT_SHAPE = (4, 4, 4)
CAPTION_LENGTH = 6
WIDTH = 8
SCALING_FACTOR = 0.5
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_pretrained(folder: Path) -> Path:
    """Write a random pipeline, as the pretrained channel holds it."""
    torch.manual_seed(3)
    tokenizer = clip_tokenizer()
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=2,
            scaling_factor=SCALING_FACTOR,
        ),
        text_encoder=CLIPTextModel(clip_config(tokenizer, WIDTH, CAPTION_LENGTH)),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=diffusers.DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_unet() -> Any:
    """Return a random UNet2DConditionModel of some 10,000 weights."""
    return diffusers.UNet2DConditionModel(
        sample_size=LATENT_SHAPE[-1],
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=2,
        use_linear_projection=True,
    )


def write_latents(
    folder: Path,
    pretrained: Path,
    train: int = 64,
    heldout: int = 10,
    embeddings: bool = False,
    broken_row: int | None = None,
    broken_value: float = np.nan,
    shape: tuple[int, int, int] = LATENT_SHAPE,
    buckets: Sequence[tuple[int, int, int]] = (),
    caption_length: int = CAPTION_LENGTH,
    features: tuple[int, int, int] = (0, 0, 0),
) -> Path:
    """Write random latents of `pretrained`, in blocks of 8 rows; the mean of `broken_row` is `broken_value`.

    With `buckets` there are as many rows of each of these shapes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    built: list[BuiltShard] = []
    numbers = np.random.default_rng(5)
    for split, rows in ((TRAIN_SPLIT, train), (HELDOUT_SPLIT, heldout)):
        sizes = [min(8, rows - first) for first in range(0, rows, 8)]
        for bucket, of in enumerate(buckets or (shape,)):
            name = LATENTS_SHARD_PATTERN.format(split=split, index=bucket)
            tensors = [_tensors(numbers, size, embeddings, of, caption_length) for size in sizes]
            for one in tensors if features[-1] else ():
                shape_of_features = (len(one["mean"]), *features)
                one["features"] = np.random.default_rng(6).normal(size=shape_of_features).astype(np.float16)
            if broken_row is not None and split == TRAIN_SPLIT:
                tensors[broken_row // 8]["mean"][broken_row % 8] = broken_value
            content, shard = build_shard(name, split, map(to_bytes, tensors), bucket)
            (folder / name).write_bytes(content)
            built.append(shard)
    (folder / LATENTS_FORMER_INDEX_FILE).write_text(
        LatentsIndex(shards=tuple(s.indexed for s in built)).model_dump_json()
    )
    times = len(buckets) or 1
    counts = {TRAIN_SPLIT: times * train, HELDOUT_SPLIT: times * heldout}
    made = _manifest(pretrained, built, counts, embeddings, shape).model_copy(update={"caption_length": caption_length})
    made = made.model_copy(update={"features_shape": features if features[-1] else ()})
    if buckets:
        made = made.model_copy(update={"buckets": buckets_of(built, buckets)})
    (folder / MANIFEST_FILE).write_text(made.model_dump_json())
    return folder


def _tensors(
    numbers: np.random.Generator, rows: int, embeddings: bool, shape: tuple[int, int, int], caption_length: int
) -> dict[str, Array]:
    tensors: dict[str, Array] = {
        "mean": numbers.normal(size=(rows, *shape)).astype(np.float16),
        "std": numbers.uniform(0.01, 0.1, (rows, *shape)).astype(np.float16),
        "token_ids": numbers.integers(0, 50, (rows, caption_length)).astype(np.int32),
    }
    if embeddings:
        tensors["embeddings"] = numbers.normal(size=(rows, CAPTION_LENGTH, WIDTH)).astype(np.float16)
    return tensors


def _manifest(
    pretrained: Path, built: list[BuiltShard], counts: dict[str, int], embeddings: bool, shape: tuple[int, int, int]
) -> LatentsManifest:
    changes = {
        **encoder_digests(pretrained, folder_family(pretrained)),
        "resolution_px": shape[-1] * 2,
        "latent_shape": shape,
        "scaling_factor": SCALING_FACTOR,
        "caption_length": CAPTION_LENGTH,
        "embedding_width": WIDTH,
    }
    return manifest(built, counts, embeddings).model_copy(update=changes)


def clip_config(
    tokenizer: CLIPTokenizer, width: int, length: int, layers: int = 1, intermediate: int = 8
) -> CLIPTextConfig:
    """Return the configuration of a small CLIP text encoder that reads a tokenizer's ids."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def clip_tokenizer() -> CLIPTokenizer:
    """Return a byte-pair tokenizer without merges: every letter is a token."""
    ends = ("<|startoftext|>", "<|endoftext|>")
    entries = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *ends]
    return CLIPTokenizer(
        vocab={entry: index for index, entry in enumerate(entries)},
        merges=[],
        bos_token=ends[0],
        eos_token=ends[1],
        unk_token=ends[1],
        pad_token=ends[1],
        model_max_length=CAPTION_LENGTH,
    )
