"""The latents artifact: what encode writes and training reads.

Reads a folder (an FSx mount, a fast file mode channel, a disk) or an s3:// prefix with manifest.json, index.arrow and
the shards that they list; nothing is looked for that they do not list. Writes nothing. Opening costs one index,
however many shards there are; rows are read a block at a time.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import ValidationError

from params.arguments import describe
from params.layout import LATENTS_INDEX_FILE, MANIFEST_FILE
from steps.data.latents.latents_index import read_index
from steps.data.latents.latents_manifest import FORMAT_VERSION, LatentsManifest
from steps.data.latents.order import MAX_LANES, Rows, SampleOrder
from steps.data.loading.batch_ring import LoadedBatch, empty
from steps.data.loading.block_reader import BlockReader, BlockTable, block_table
from steps.data.loading.blocks import MAX_LOST_FRACTION, Tensors
from steps.data.loading.bucket_order import BucketStream, TrainingOrder
from steps.data.storage import Storage
from steps.errors import StepError

# Rows that are read one after the other need few blocks in memory.
KEPT_BLOCKS: Final = 4


class LatentsDataset:
    """The latents of one folder or prefix; row i of a split is its i-th sample in the order of the index."""

    def __init__(self, location: Path | str, max_lost_fraction: float = MAX_LOST_FRACTION) -> None:
        """Open the artifact. Raises StepError where manifest or index is missing, or one does not fit the other."""
        self.location = str(location)
        self.files = Storage(self.location)
        """What blocks are read from."""
        self.manifest, index = self._open()
        self._check(index)
        self._tables = {split: block_table(index, split) for split in self.manifest.counts}
        self._max_lost_fraction = max_lost_fraction
        self.blocks = cache(self._blocks)
        """A reader of whole blocks of a split."""
        self._block = lru_cache(KEPT_BLOCKS)(self._copied)

    def count(self, split: str) -> int:
        """Return how many samples a split has; 0 where there is none of that name."""
        return self.manifest.counts.get(split, 0)

    def read(self, split: str, rows: Rows) -> LoadedBatch:
        """Return rows of one bucket of a split, in the order asked for. Not for several threads at once.

        Raises IndexError for a row that is not there, ValueError for several buckets, StepError for too many lost rows.
        """
        blocks, table = self.blocks(split), self.table(split)
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < table.count):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} of {table.count}")
        block_of = np.searchsorted(table.first_rows, rows, side="right") - 1
        buckets = np.unique(table.buckets[block_of])
        if len(buckets) > 1:
            raise ValueError(f"rows of buckets {buckets.tolist()} have different shapes")
        fields = blocks.fields[int(buckets[0]) if len(buckets) else 0]
        batch = {field.name: empty(field, len(rows)) for field in fields}
        for block in np.unique(block_of).tolist():
            wanted = np.flatnonzero(block_of == block)
            tensors, inside = self._block(split, block), rows[wanted] - table.first_rows[block]
            for name, target in batch.items():
                target.numpy()[wanted] = tensors[name][inside]
        return LoadedBatch(torch.from_numpy(rows), **batch)

    def order(self, split: str, seed: int, global_batch_size: int, max_lanes: int = MAX_LANES) -> TrainingOrder:
        """Return the order in which training sees a split; `max_lanes` as for SampleOrder."""
        table = self.table(split)
        streams = []
        for bucket, span in self.spans(split).items():
            blocks = table.blocks_of(bucket)
            order = SampleOrder(
                len(span),
                seed,
                global_batch_size=global_batch_size,
                block_rows=table.rows[blocks],
                max_lanes=max_lanes,
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

    def _blocks(self, split: str) -> BlockReader:
        return BlockReader(self.files, self.table(split), self.manifest.latent_shapes, self._max_lost_fraction)

    def _copied(self, split: str, block: int) -> Tensors:
        with self.blocks(split).read(block) as lent:
            return {name: tensor.copy() for name, tensor in lent.items()}

    def _open(self) -> tuple[LatentsManifest, Any]:
        name = MANIFEST_FILE
        try:
            content = self.files.read(name)
            manifest = LatentsManifest.model_validate_json(content)
            name = LATENTS_INDEX_FILE
            return manifest, read_index(self.files, content)
        except OSError as error:
            reason = f"cannot be read ({error.strerror or error}): the latents were never finished"
            raise StepError(f"{self.location}/{name}: {reason}") from None
        except ValueError as error:
            text = describe(error) if isinstance(error, ValidationError) else str(error)
            raise StepError(f"{self.location}/{name}: {text[:300]}") from None

    def _check(self, index: Any) -> None:
        counts = index["offsets"].value_lengths().to_numpy()
        sums = np.add.reduceat(index["block_rows"].flatten().to_numpy(), np.cumsum(counts) - counts, dtype=np.int64)
        of_shards = [index[name].to_pylist() for name in ("name", "split", "bucket")]
        indexed = list(zip(*of_shards, sums.tolist(), strict=True))
        listed = [(shard.name, shard.split, shard.rows) for shard in self.manifest.shards]
        totals = {split: sum(rows for _, kind, _, rows in indexed if kind == split) for split in self.manifest.counts}
        if self.manifest.format_version != FORMAT_VERSION:
            raise StepError(f"{self.location}: format {self.manifest.format_version}, this code reads {FORMAT_VERSION}")
        fits = [(name, split, rows) for name, split, _, rows in indexed] == listed and totals == self.manifest.counts
        if not fits or not _has_buckets(indexed, self.manifest):
            problem = f"the index does not belong to {MANIFEST_FILE}"
            raise StepError(f"{self.location}: {problem}; run encode again")


def _has_buckets(indexed: Sequence[tuple[str, str, int, int]], manifest: LatentsManifest) -> bool:
    """Return whether the shards of each split are in the order of the manifest's buckets, and as large."""
    for split in manifest.counts:
        buckets = [bucket for _, kind, bucket, _ in indexed if kind == split]
        if buckets != sorted(buckets) or not set(buckets) <= set(range(len(manifest.latent_shapes))):
            return False
    found: Counter[tuple[str, int]] = Counter()
    for _, split, bucket, rows in indexed:
        found[split, bucket] += rows
    listed = {(split, n): rows for n, b in enumerate(manifest.buckets) for split, rows in b.counts.items() if rows}
    return not manifest.buckets or found == listed
