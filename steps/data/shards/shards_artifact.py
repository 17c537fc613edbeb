"""The shards artifact: what download writes and encode reads.

NNNNN.tar             WebDataset shard (jpg, txt, json), in the order of the keys
NNNNN.parquet         img2dataset's fate of every row, and NNNNN_stats.json its statistics
NNNNN.samples.parquet key, caption, place in the tar and hashes of every sample, and why some do not count
NNNNN.verified.json   that the above agree: without it the shard does not exist
manifest.json         the verified shards and the ledger, written last
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import not_
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field, ValidationError

from params.arguments import describe
from params.layout import SHARD_PATTERN
from params.model import Model
from steps.artifact import PartRecord
from steps.data.causes import LEFT_OUT, Cause
from steps.errors import StepError

SAMPLES_SUFFIX: Final = ".samples.parquet"
FORMAT_VERSION: Final = 2
# Fields that are left out while they have nothing to tell (exclude_if=not_) came after release 0.1.0.


def shard_stem(index: int) -> str:
    """Return the part of a shard's file names that they share."""
    return SHARD_PATTERN.format(index=index).removesuffix(".tar")


class VerifiedShard(Model):
    """One shard that was read back: members of the tar = successes in the statistics = those in the parquet."""

    name: str
    rows: int
    """Rows of the table that it stands for."""
    samples: int
    """Rows that became samples and are no duplicates: what NNNNN.samples.parquet keeps of the tar."""
    bytes: int
    sha256: str
    failed: dict[str, int]
    """Rows that did not, by cause (steps.data.causes)."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Samples of the tar that do not count, by cause: copies, and what filters leave out that once passed them. Not in
    the record, since settings and other shards decide it."""
    treated: dict[str, int] = Field(default_factory=dict, exclude_if=not_)
    """Samples of the tar that are not stored as they came: upscaled, turned_upright, laid_on_white, first_frame (of an
    animation), profile_ignored."""
    untried: int = 0
    """Rows that were not fetched: of shards of release 0.1.0, which listed them."""
    retried: dict[str, int] = Field(default_factory=dict)
    """In a shard of a later round of release 0.1.0: the causes under which its rows were counted before."""
    uncaptioned: int = Field(0, exclude_if=not_)
    """Samples whose caption is empty, which keep_uncaptioned keeps."""


class ShardRecord(PartRecord):
    """What NNNNN.verified.json holds."""

    shard: VerifiedShard
    limits: dict[str, Any] = Field(default_factory=dict)
    """Under which its rows were fetched (steps.data.shards.limits); release 0.1.0 had them in the digest."""

    @property
    def part(self) -> tuple[str, int]:
        """Name and size of the tar."""
        return self.shard.name, self.shard.bytes


class Ledger(Model):
    """Every row's fate."""

    rows: int
    tried: int
    """Rows that were fetched: the table alone did not decide about them."""
    kept: int
    """Rows that became samples."""
    failed: dict[str, int]
    """Rows that could not become samples, by cause."""
    filtered: dict[str, int]
    """Rows that were left out on purpose, by filter. kept + failed + filtered = rows."""
    treated: dict[str, int] = Field(default_factory=dict, exclude_if=not_)
    """Samples, copies of others too, to which something was done: see VerifiedShard.treated."""
    sample_yield: float
    """kept / (kept + failed): of the rows that the filters left."""
    bytes: int
    uncaptioned: int = Field(0, exclude_if=not_)
    """Of those kept: with an empty caption, as keep_uncaptioned has it."""
    set_aside: dict[str, int] = Field(default_factory=dict, exclude_if=not_)
    """Parts of the table that could not be read and cost no row, by kind: a .json of a sample, the end of a tar."""


class ShardsManifest(Model):
    """The verified shards, and nothing else, are the artifact."""

    format_version: int = FORMAT_VERSION
    plan_digest: str
    """Of the table and the settings that made it."""
    table_digest: str
    image_size_px: int
    """Shorter side of the pictures."""
    resize_mode: str
    """`center_crop` or `keep_ratio`."""
    ledger: Ledger
    shards: tuple[VerifiedShard, ...]
    """In the order of the table."""
    sick_hosts: dict[str, str] = Field(default_factory=dict, exclude_if=not_)
    """Hosts that were set aside or lost meanwhile, by the most frequent cause; no row was lost to them."""


def make_ledger(
    shards: Sequence[VerifiedShard],
    fates: Mapping[str, int],
    rows: int,
    tried: int,
    set_aside: Mapping[str, int] = MappingProxyType({}),
) -> Ledger:
    """Return the ledger of so many rows: `fates` counts those that are no samples, `set_aside` what cost no row."""
    failed = {cause: count for cause, count in sorted(fates.items()) if count and cause not in LEFT_OUT}
    filtered = {cause: count for cause, count in sorted(fates.items()) if count and cause in LEFT_OUT}
    kept = sum(shard.samples for shard in shards)
    attempted = kept + sum(failed.values())
    treated = sum((Counter(shard.treated) for shard in shards), Counter[str]())
    return Ledger(
        rows=rows,
        tried=tried,
        kept=kept,
        failed=failed,
        filtered=filtered,
        treated=dict(sorted(treated.items())),
        sample_yield=round(kept / attempted, 6) if attempted else 0.0,
        bytes=sum(shard.bytes for shard in shards),
        uncaptioned=sum(shard.uncaptioned - shard.dropped.get(Cause.NO_CAPTION, 0) for shard in shards),
        set_aside=dict(sorted(set_aside.items())),
    )


def read_shards_manifest(path: Path) -> tuple[ShardsManifest, str]:
    """Return a manifest and the sha256 of its bytes. Raises StepError where it is not there, or none."""
    try:
        content = path.read_bytes()
        manifest = ShardsManifest.model_validate_json(content)
    except OSError:
        raise StepError(f"{path}: not there; the manifest that download writes is needed") from None
    except ValidationError as error:
        raise StepError(f"{path}: not a manifest of shards: {describe(error)[:300]}") from None
    if manifest.format_version != FORMAT_VERSION:
        raise StepError(f"{path}: format {manifest.format_version}, this code reads {FORMAT_VERSION}")
    return manifest, hashlib.sha256(content).hexdigest()
