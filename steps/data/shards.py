"""The shards artifact: what download writes and encode reads.

NNNNN.tar             WebDataset shard (jpg, txt, json), in the order of the keys
NNNNN.parquet         img2dataset's fate of every row, and NNNNN_stats.json its statistics
NNNNN.samples.parquet key, caption and place in the tar of every sample
NNNNN.verified.json   that the above agree: without it the shard does not exist
manifest.json         the verified shards and the ledger, written last
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from params.arguments import describe
from params.layout import SHARD_PATTERN
from params.model import Model
from steps.errors import StepError

SAMPLES_SUFFIX: Final = ".samples.parquet"
VERIFIED_SUFFIX: Final = ".verified.json"
FORMAT_VERSION: Final = 1


def shard_stem(index: int) -> str:
    """Return the part of a shard's file names that they share."""
    return SHARD_PATTERN.format(index=index).removesuffix(".tar")


class VerifiedShard(Model):
    """One shard that was read back: members of the tar = successes in the statistics = those in the parquet."""

    name: str
    """The tar."""
    rows: int
    """Rows of the table that it stands for."""
    samples: int
    """Rows that became samples."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """Of the tar."""
    failed: dict[str, int]
    """Rows that did not, by cause (steps.data.causes)."""


class ShardRecord(Model):
    """What NNNNN.verified.json holds."""

    plan_digest: str
    """Of the table and the settings that the shard was made with: another plan's shards do not count."""
    shard: VerifiedShard
    """The shard."""


class Ledger(Model):
    """Every row's fate."""

    rows: int
    """Rows of the table."""
    tried: int
    """Rows that were fetched: neither a duplicate nor without url."""
    kept: int
    """Rows that became samples."""
    duplicates: int
    """Rows whose url stands further up."""
    failed: dict[str, int]
    """Rows that did not become samples, by cause, duplicates among them."""
    sample_yield: float
    """kept / rows."""
    bytes: int
    """Of all tars."""


class ShardsManifest(Model):
    """The verified shards, and nothing else, are the artifact."""

    format_version: int = FORMAT_VERSION
    """Of the artifact."""
    plan_digest: str
    """Of the table and the settings that made it."""
    table_digest: str
    """Of the url table."""
    image_size_px: int
    """Shorter side of the pictures."""
    resize_mode: str
    """`center_crop` or `keep_ratio`."""
    ledger: Ledger
    """Every row's fate."""
    shards: tuple[VerifiedShard, ...]
    """In the order of the table."""


def make_ledger(shards: Iterable[VerifiedShard], untried: frozenset[str], duplicate: str) -> Ledger:
    """Add up the shards; causes in `untried` mean that a row was not fetched."""
    rows = kept = size = 0
    failed: Counter[str] = Counter()
    for shard in shards:
        rows, kept, size = rows + shard.rows, kept + shard.samples, size + shard.bytes
        failed.update(shard.failed)
    return Ledger(
        rows=rows,
        tried=rows - sum(failed[cause] for cause in untried),
        kept=kept,
        duplicates=failed[duplicate],
        failed=dict(sorted(failed.items())),
        sample_yield=round(kept / rows, 6) if rows else 0.0,
        bytes=size,
    )


def read_shards_manifest(content: bytes, source: str) -> ShardsManifest:
    """Parse a manifest. Raises StepError that names `source`."""
    try:
        manifest = ShardsManifest.model_validate_json(content)
    except ValidationError as error:
        raise StepError(f"{source}: not a manifest of shards: {describe(error)[:300]}") from None
    if manifest.format_version != FORMAT_VERSION:
        raise StepError(f"{source}: format {manifest.format_version}, this code reads {FORMAT_VERSION}")
    return manifest


def sha256(content: bytes) -> str:
    """Return the hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()
