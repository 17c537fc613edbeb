"""Deals the samples of verified shards out to latents blocks, and decodes their pictures.

Reads a shard once for all blocks that have some of its samples, whatever their buckets; writes nothing.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from params.layout import TRAIN_SPLIT
from steps.data.encoding.buckets import Size
from steps.data.encoding.plan import EncodePlan, Part, Selection, train_rows
from steps.data.encoding.samples import Sample, SampleTable, read_samples, read_table
from steps.data.encoding.written_captions import captions_of
from steps.data.latents.order import Rows
from steps.data.pictures.perceptual_hash import Pixels
from steps.data.storage import Storage
from steps.errors import StepError


@dataclass(frozen=True, eq=False)
class ShardsSource:
    """Where the pictures are and how large the encoder wants them."""

    shards_uri: str
    plan: EncodePlan
    """Which samples become which rows, and which shape they have there."""
    captions_uri: str = ""
    """Where Recaption wrote captions; empty: there are none."""


def deal(source: ShardsSource, parts: Sequence[Part]) -> Iterator[tuple[int, list[Sample]]]:
    """Read parts of one verified shard, front to back; yield each part's number and samples once it is whole.

    Training samples have the caption that Recaption wrote, if any. Raises StepError where the shard is another one.
    """
    plan, name = source.plan, source.plan.sources[parts[0].source]
    table, training = _table(source.shards_uri, name, plan.selection)
    written = _written(source.captions_uri, name)
    rows = np.concatenate([_rows(plan, training, part) for part in parts])
    part_of = np.repeat(np.arange(len(parts)), [part.rows for part in parts])
    order = np.argsort(rows)
    read = read_samples(Storage(source.shards_uri), table, rows[order])
    held: list[list[Sample]] = [[] for _ in parts]
    for number, sample in zip(part_of[order].tolist(), read, strict=True):
        part, samples = parts[number], held[number]
        own = written.get(sample.key, "") if part.split == TRAIN_SPLIT else ""
        samples.append(sample._replace(written=own))
        if len(samples) == part.rows:
            held[number] = []
            yield number, samples


def planned_samples(source: ShardsSource, split: str, first: int, count: int) -> list[Sample]:
    """Return the samples of rows of a split; those of training with the caption that Recaption wrote, if any."""
    parts = source.plan.locate(split, first, count)
    return [sample for part in parts for _, samples in deal(source, [part]) for sample in samples]


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


def _rows(plan: EncodePlan, training: list[Rows], part: Part) -> Rows:
    """Return the rows of the shard's table that a part is, ascending."""
    rows = training[part.bucket] if part.split == TRAIN_SPLIT else plan.heldout_rows(part.bucket, part.source)
    return rows[part.place : part.place + part.rows]


@lru_cache(maxsize=16)
def _written(uri: str, name: str) -> dict[str, str]:
    """Return the captions that Recaption wrote for a shard, by key; none without a place."""
    return captions_of(Storage(uri), name) if uri else {}


@lru_cache(maxsize=16)
def _table(uri: str, name: str, selection: Selection) -> tuple[SampleTable, list[Rows]]:
    table = read_table(Storage(uri), name, selection.min_original_px)
    return table, train_rows(table, selection)
