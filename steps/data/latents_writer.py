"""Writes finished latents shards, and finds those that are finished already.

Writes <shard>.tar and, after it, <shard>.verified.json: without it the shard does not exist, and a restarted job makes
it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from params.model import Model
from steps.data.latents_shard import BuiltShard, build_shard
from steps.data.plan import PlannedShard
from steps.data.shards import VERIFIED_SUFFIX
from steps.data.storage import Storage
from steps.errors import StepError


class LatentsRecord(Model):
    """What <shard>.verified.json holds."""

    plan_digest: str
    """Of everything that decided the content."""
    shard: BuiltShard
    """For manifest and index."""
    sums: tuple[float, ...]
    """See steps.data.encoder.moments_sums."""
    psnr_db: float
    """Of its first pictures."""


def write_shard(storage: Storage, plan_digest: str, planned: PlannedShard, rows: Iterable[Any]) -> LatentsRecord:
    """Write a shard from the encoder's rows of it, in any order; rows of other shards are passed over.

    Raises StepError where a block is missing, OSError where the object does not arrive.
    """
    blocks = {int(row["block"]): row for row in rows if row["shard"] == planned.name}
    if sorted(blocks) != list(range(len(planned.block_rows))):
        raise StepError(f"encode: {planned.name}: {len(blocks)} of {len(planned.block_rows)} blocks arrived")
    ordered = [blocks[number] for number in sorted(blocks)]
    content, built = build_shard(planned.name, planned.split, (row["content"] for row in ordered), planned.bucket)
    if built.indexed.block_rows != planned.block_rows:
        raise StepError(f"encode: {planned.name}: blocks of {built.indexed.block_rows} rows, not as planned")
    storage.write(planned.name, content)
    if storage.size(planned.name) != len(content):
        raise OSError(f"{storage.uri}/{planned.name} did not arrive whole")
    record = LatentsRecord(
        plan_digest=plan_digest,
        shard=built,
        sums=tuple(map(math.fsum, zip(*(row["sums"] for row in ordered), strict=True))),
        psnr_db=float(ordered[0]["psnr_db"]),
    )
    storage.write(_record_name(planned.name), record.model_dump_json().encode())
    return record


def finished_shards(storage: Storage, plan_digest: str, planned: Sequence[PlannedShard]) -> dict[str, LatentsRecord]:
    """Return the records, by name, of planned shards that are there already."""
    sizes = storage.sizes()
    wanted = {_record_name(shard.name): shard.name for shard in planned if shard.name in sizes}
    found: dict[str, LatentsRecord] = {}
    for name, content in storage.read_many([name for name in wanted if name in sizes]).items():
        try:
            record = LatentsRecord.model_validate_json(content)
        except ValidationError:
            continue
        if record.plan_digest == plan_digest and sizes[wanted[name]] == record.shard.listed.bytes:
            found[wanted[name]] = record
    return found


def _record_name(name: str) -> str:
    return name.removesuffix(".tar") + VERIFIED_SUFFIX
