"""plan.json of the latents artifact: which sample of which verified shard is which row, for whoever encodes later.

Encode writes it; a training that encodes its latents online reads it, so that it need not read every caption again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import ValidationError

from params.arguments import describe
from params.model import Model
from steps.data.encoding.buckets import Buckets, Size
from steps.data.encoding.plan import EncodePlan
from steps.data.latents.order import Rows
from steps.errors import StepError


class PlanFile(Model):
    """The plan of an encoding, of its encoded and its other rows alike."""

    plan_digest: str
    """Of the encoding that planned it."""
    sources: tuple[str, ...]
    train_counts: tuple[tuple[int, ...], ...]
    """Training samples of each bucket in each of them."""
    heldout: tuple[tuple[int, int, int], ...]
    """Bucket, shard and row of its table of each held-out sample."""
    dropped_heldout_samples: int
    """Held-out samples over the limit."""
    heldout_fraction: float
    shapes: tuple[tuple[int, int], ...]
    """Height and width in pixels of every shape that a picture may have."""
    buckets: tuple[int, ...]
    """Which of them are buckets."""
    min_original_px: int = 0
    """Shorter side that the pictures' originals had at least, where it is known."""
    rows_per_shard: int
    rows_per_block: int

    @property
    def plan(self) -> EncodePlan:
        """The plan itself."""
        return EncodePlan(
            sources=self.sources,
            train_counts=np.array(self.train_counts, dtype=np.int64),
            heldout=np.array(self.heldout, dtype=np.int64).reshape(-1, 3),
            dropped_heldout_samples=self.dropped_heldout_samples,
            heldout_fraction=self.heldout_fraction,
            buckets=Buckets(tuple(Size(*shape) for shape in self.shapes), self.buckets),
            min_original_px=self.min_original_px,
        )

    def block_rows(self, split: str) -> Rows:
        """Return the rows of each block of a split, int64 [blocks]: as Encode cuts them."""
        shards = self.plan.shards(self.rows_per_shard, self.rows_per_block)
        return np.array([rows for shard in shards if shard.split == split for rows in shard.block_rows], np.int64)


def plan_file(plan: EncodePlan, plan_digest: str, rows_per_shard: int, rows_per_block: int) -> PlanFile:
    """Return what plan.json says."""
    return PlanFile(
        plan_digest=plan_digest,
        sources=plan.sources,
        train_counts=tuple(map(tuple, plan.train_counts.tolist())),
        heldout=tuple(map(tuple, plan.heldout.tolist())),
        dropped_heldout_samples=plan.dropped_heldout_samples,
        heldout_fraction=plan.heldout_fraction,
        shapes=tuple(plan.buckets.candidates),
        buckets=plan.buckets.kept,
        min_original_px=plan.min_original_px,
        rows_per_shard=rows_per_shard,
        rows_per_block=rows_per_block,
    )


def read_plan_file(path: Path) -> PlanFile:
    """Return a plan. Raises StepError where it is missing or is none."""
    try:
        return PlanFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StepError(f"{path}: cannot be read ({error.strerror}): run encode again, it writes the plan") from None
    except ValidationError as error:
        raise StepError(f"{path}: {describe(error)[:300]}") from None
