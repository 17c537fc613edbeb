"""The latents artifact: what encode writes and training reads.

Reads a folder (an FSx mount, a fast file mode channel, a disk) or an s3:// prefix with manifest.json, index.json and
the shards that they list; nothing is looked for that they do not list. Writes nothing. Opening costs one index,
however many shards there are; rows are read a block at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from pydantic import ValidationError

from params.arguments import describe
from params.layout import LATENTS_INDEX_FILE, MANIFEST_FILE
from params.model import Model
from steps.data.latents.block import Array
from steps.data.latents.latents_manifest import FORMAT_VERSION, LatentsIndex, LatentsManifest
from steps.data.latents.order import Rows, SampleOrder
from steps.data.loading.batch_ring import LoadedBatch, empty
from steps.data.loading.block_files import BlockFiles
from steps.data.loading.block_reader import MAX_LOST_FRACTION, BlockReader, BlockTable, block_table
from steps.data.loading.bucket_order import BucketStream, TrainingOrder
from steps.errors import StepError

# Held-out rows are read in order, so few blocks need to stay.
RANDOM_READ_BLOCKS: Final = 4

M = TypeVar("M", bound=Model)


class LatentsDataset:
    """The latents of one folder or prefix; row i of a split is its i-th sample in the order of the index."""

    def __init__(self, location: Path | str) -> None:
        """Open the artifact. Raises StepError where manifest or index is missing, or one does not fit the other."""
        self.location = str(location)
        self.files = BlockFiles(location)
        """What blocks are read from."""
        self.manifest = self._open(MANIFEST_FILE, LatentsManifest)
        index = self._open(LATENTS_INDEX_FILE, LatentsIndex)
        self._check(index)
        self._tables = {split: block_table(index, split) for split in self.manifest.counts}
        self._kept_reader = cache(self.reader)

    def count(self, split: str) -> int:
        """Return how many samples a split has; 0 where there is none of that name."""
        return self.manifest.counts.get(split, 0)

    def read(self, split: str, rows: Rows) -> LoadedBatch:
        """Return rows of a split and of one bucket, in the order asked for. Not for several threads at once.

        Raises IndexError for a row that is not there, ValueError for rows of several buckets.
        """
        return self._kept_reader(split).read(rows)

    def order(self, split: str, seed: int, global_batch_size: int, lanes: int | None = None) -> TrainingOrder:
        """Return the order in which training sees a split; `lanes` as for SampleOrder."""
        table = self.table(split)
        streams = []
        for bucket, span in self.spans(split).items():
            blocks = table.blocks_of(bucket)
            order = SampleOrder(
                len(span),
                seed,
                global_batch_size=global_batch_size,
                block_rows=table.rows[blocks],
                lanes=lanes,
                stream=bucket,
            )
            streams.append(BucketStream(bucket, order, span.start, blocks.start))
        return TrainingOrder(streams)

    def spans(self, split: str) -> dict[int, range]:
        """Return the rows of each bucket of a split that has any."""
        table = self.table(split)
        spans = {}
        for bucket in np.unique(table.buckets).tolist():
            blocks = table.blocks_of(bucket)
            first = int(table.first_rows[blocks][0])
            spans[bucket] = range(first, first + int(table.rows[blocks].sum()))
        return spans

    def table(self, split: str) -> BlockTable:
        """Return where the blocks of a split are. Raises StepError where it has no samples."""
        if not self.count(split):
            raise StepError(f"{self.location}: the latents have no {split!r} samples; encode more pictures")
        return self._tables[split]

    def reader(self, split: str, kept_blocks: int = RANDOM_READ_BLOCKS) -> LatentsReader:
        """Return a reader of rows that keeps up to `kept_blocks` blocks in memory."""
        return LatentsReader(self.blocks(split), kept_blocks)

    def blocks(self, split: str, max_lost_fraction: float = MAX_LOST_FRACTION) -> BlockReader:
        """Return a reader of whole blocks of a split."""
        return BlockReader(self.files, self.table(split), self.manifest.latent_shapes, max_lost_fraction)

    def _open(self, name: str, model: type[M]) -> M:
        try:
            return model.model_validate_json(self.files.read(name))
        except OSError as error:
            reason = error.strerror or error
            raise StepError(
                f"{self.location}/{name}: cannot be read ({reason}): the latents were never finished"
            ) from None
        except ValidationError as error:
            raise StepError(f"{self.location}/{name}: {describe(error)[:300]}") from None

    def _check(self, index: LatentsIndex) -> None:
        indexed = [(shard.name, shard.split, sum(shard.block_rows)) for shard in index.shards]
        listed = [(shard.name, shard.split, shard.rows) for shard in self.manifest.shards]
        totals = {split: sum(rows for _, kind, rows in indexed if kind == split) for split in self.manifest.counts}
        if self.manifest.format_version != FORMAT_VERSION:
            raise StepError(f"{self.location}: format {self.manifest.format_version}, this code reads {FORMAT_VERSION}")
        if indexed != listed or totals != self.manifest.counts or not _has_buckets(index, self.manifest):
            raise StepError(
                f"{self.location}: {LATENTS_INDEX_FILE} does not belong to {MANIFEST_FILE}; run encode again"
            )


def _has_buckets(index: LatentsIndex, manifest: LatentsManifest) -> bool:
    """Return whether the shards of each split are in the order of the manifest's buckets, and as large."""
    for split in manifest.counts:
        buckets = [shard.bucket for shard in index.shards if shard.split == split]
        if buckets != sorted(buckets) or not set(buckets) <= set(range(len(manifest.latent_shapes))):
            return False
    indexed: Counter[tuple[str, int]] = Counter()
    for shard in index.shards:
        indexed[shard.split, shard.bucket] += sum(shard.block_rows)
    listed = {(split, n): rows for n, b in enumerate(manifest.buckets) for split, rows in b.counts.items() if rows}
    return not manifest.buckets or indexed == listed


class LatentsReader:
    """Rows of one split in any order, through a cache of blocks: for what is read rarely or again and again.

    Training's stream has its own way, the loader. Not for several threads at once.
    """

    def __init__(self, blocks: BlockReader, capacity_blocks: int) -> None:
        """Keep up to `capacity_blocks` blocks in memory."""
        self._blocks = blocks
        self._block = lru_cache(max(1, capacity_blocks))(self._copied)

    @property
    def lost_rows(self) -> int:
        """Rows that other rows stand in for."""
        return self._blocks.lost_rows

    def read(self, rows: Rows) -> LoadedBatch:
        """Return rows of one bucket, in the order asked for.

        Raises IndexError for a row that is not there, ValueError for rows of several buckets, StepError when more rows
        are lost than allowed.
        """
        table = self._blocks.table
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < table.count):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} of {table.count}")
        block_of = np.searchsorted(table.first_rows, rows, side="right") - 1
        buckets = np.unique(table.buckets[block_of])
        if len(buckets) > 1:
            raise ValueError(f"rows of buckets {buckets.tolist()} have different shapes")
        fields = self._blocks.fields[int(buckets[0]) if len(buckets) else 0]
        batch = {field.name: empty(field, len(rows)) for field in fields}
        for block in np.unique(block_of).tolist():
            wanted = np.flatnonzero(block_of == block)
            tensors, inside = self._block(block), rows[wanted] - table.first_rows[block]
            for name, target in batch.items():
                target.numpy()[wanted] = tensors[name][inside]
        return LoadedBatch(torch.from_numpy(rows), **batch)

    def _copied(self, block: int) -> Mapping[str, Array]:
        with self._blocks.read(block) as lent:
            return {name: tensor.copy() for name, tensor in lent.items()}
