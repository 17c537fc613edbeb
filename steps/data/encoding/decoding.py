"""Decodes the pictures of latents blocks, on CPUs, ahead of the encoders.

Yields a row for each block to Ray Data: pixels as bytes are one flat buffer that no one copies to count it.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from params.layout import TRAIN_SPLIT
from steps.data.encoding.buckets import Buckets, Size
from steps.data.encoding.plan import EncodePlan, PlannedShard, Selection, train_rows
from steps.data.encoding.samples import Sample, SampleTable, read_samples, read_table
from steps.data.encoding.written_captions import captions_of
from steps.data.latents.order import Rows
from steps.data.pictures.perceptual_hash import Pixels
from steps.data.storage import Storage
from steps.errors import StepError

# A decoding task hands over about this much at once; more would delay the first batch and fill the object store.
SPAN_BYTES: Final = 64 << 20
MAX_SPAN_BLOCKS: Final = 4


@dataclass(frozen=True, eq=False)
class ShardsSource:
    """Where the pictures are and how large the encoder wants them."""

    shards_uri: str
    plan: EncodePlan
    """Which samples become which rows, and which shape they have there."""
    captions_uri: str = ""
    """Where Recaption wrote captions; empty: there are none."""


def spans(shards: list[PlannedShard], buckets: Buckets) -> Iterator[dict[str, Any]]:
    """Yield the tasks of shards, in order: some neighbouring blocks of one of them each."""
    for shard in shards:
        block_bytes = max(shard.block_rows) * math.prod(buckets.sizes[shard.bucket]) * 3
        step = max(1, min(MAX_SPAN_BLOCKS, SPAN_BYTES // block_bytes))
        for block in range(0, len(shard.block_rows), step):
            sizes = shard.block_rows[block : block + step]
            first_row = shard.first_row + sum(shard.block_rows[:block])
            yield {
                "shard": shard.name,
                "split": shard.split,
                "bucket": shard.bucket,
                "block": block,
                "first_row": first_row,
                "sizes": list(sizes),
            }


def decode_span(span: dict[str, Any], source: ShardsSource) -> Iterator[dict[str, Any]]:
    """Yield the decoded blocks of a task; `written`, by Recaption, is of training samples alone (empty: none)."""
    has_written = bool(source.captions_uri) and span["split"] == TRAIN_SPLIT
    first, size = int(span["first_row"]), source.plan.selection.buckets.sizes[int(span["bucket"])]
    for number, rows in enumerate(span["sizes"]):
        samples = planned_samples(source, str(span["split"]), first, int(rows))
        pixels = np.stack([decode(sample, size) for sample in samples])
        yield {
            "shard": span["shard"],
            "block": int(span["block"]) + number,
            "shape": list(pixels.shape),
            "pixels": pixels.tobytes(),
            "captions": [sample.caption for sample in samples],
            "written": [sample.written for sample in samples] if has_written else [],
        }
        first += int(rows)


def planned_samples(source: ShardsSource, split: str, first: int, count: int) -> list[Sample]:
    """Return the samples of rows of a split; those of training with the caption that Recaption wrote, if any."""
    samples: list[Sample] = []
    storage = Storage(source.shards_uri)
    plan = source.plan
    for bucket, number, place, part in plan.locate(split, first, count):
        table, training_rows = _table(source.shards_uri, plan.sources[number], plan.selection)
        rows = training_rows[bucket] if split == TRAIN_SPLIT else plan.heldout_rows(bucket, number)
        written = _written(source.captions_uri if split == TRAIN_SPLIT else "", table.name)
        read = read_samples(storage, table, rows[place : place + part])
        samples += [sample._replace(written=written.get(sample.key, "")) for sample in read]
    return samples


def decode(sample: Sample, size: Size) -> Pixels:
    """Return a picture, uint8 [H, W, 3], resized and cut to a shape in its middle. Raises StepError if it is none."""
    try:
        with Image.open(io.BytesIO(sample.picture), formats=("JPEG",)) as opened:
            picture = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise StepError(f"sample {sample.key}: its picture cannot be decoded ({error}); download again") from None
    wanted = (size.width_px, size.height_px)
    if picture.size != wanted:
        picture = ImageOps.fit(picture, wanted, Image.Resampling.LANCZOS)
    return np.asarray(picture)


@lru_cache(maxsize=16)
def _written(uri: str, name: str) -> dict[str, str]:
    """Return the captions that Recaption wrote for a shard, by key; none without a place."""
    return captions_of(Storage(uri), name) if uri else {}


@lru_cache(maxsize=16)
def _table(uri: str, name: str, selection: Selection) -> tuple[SampleTable, list[Rows]]:
    table = read_table(Storage(uri), name, selection.min_original_px)
    return table, train_rows(table, selection)
