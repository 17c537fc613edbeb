"""Writes finished latents shards.

Writes <shard>.tar and, after it, <shard>.verified.json: without it the shard does not exist, and a restarted job makes
it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from steps.artifact import PartRecord
from steps.data.encoding.plan import PlannedShard
from steps.data.latents.latents_shard import BuiltShard, build_shard
from steps.data.storage import Storage
from steps.errors import StepError


class LatentsRecord(PartRecord):
    """What <shard>.verified.json holds."""

    shard: BuiltShard
    sums: tuple[float, ...]
    """See steps.data.encoding.encoder.moments_sums."""
    psnr_db: float
    """Of its first pictures."""

    @property
    def part(self) -> tuple[str, int]:
        """Name and size of the tar."""
        return self.shard.listed.name, self.shard.listed.bytes


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
    record.write(storage)
    return record
