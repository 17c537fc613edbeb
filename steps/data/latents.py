"""The latents artifact: what encode writes and training reads.

Reads a folder (an FSx mount, a fast file mode channel, a disk) with manifest.json, index.json and the shards that they
list; nothing is looked for that they do not list. Writes nothing. Opening costs one index, however many shards there
are; rows are read a block at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from params.arguments import describe
from params.layout import LATENTS_INDEX_FILE, MANIFEST_FILE
from params.model import Model
from steps.data.latents_manifest import FORMAT_VERSION, LatentsIndex, LatentsManifest
from steps.data.order import Rows, SampleOrder
from steps.data.reader import BlockTable, LatentsReader
from steps.errors import StepError

# Random rows are read through a cache of this many blocks; training's loader sizes its own.
RANDOM_READ_BLOCKS: Final = 64

__all__ = ["LatentsBatch", "LatentsDataset", "LatentsManifest", "batch_arrays"]

M = TypeVar("M", bound=Model)


class LatentsBatch(NamedTuple):
    """Rows of the latents, in memory of the CPU."""

    mean: torch.Tensor
    """[rows, C, H, W] float16: posterior mean, unscaled."""
    std: torch.Tensor
    """[rows, C, H, W] float16: posterior standard deviation, unscaled."""
    token_ids: torch.Tensor
    """[rows, caption length] int32."""
    embeddings: torch.Tensor | None
    """[rows, caption length, width] float16, where they are cached."""


class LatentsDataset:
    """The latents of one folder; row i of a split is its i-th sample in the order of the index."""

    def __init__(self, folder: Path) -> None:
        """Open the artifact.

        Raises StepError where the manifest or the index is missing, unreadable, or one does not fit the other.
        """
        self.folder = folder
        self.manifest = _load(folder / MANIFEST_FILE, LatentsManifest)
        index = _load(folder / LATENTS_INDEX_FILE, LatentsIndex)
        self._check(index)
        self._blocks = {split: _block_table(folder, index, split) for split in self.manifest.counts}
        self._readers: dict[str, LatentsReader] = {}

    def count(self, split: str) -> int:
        """Return how many samples a split has; 0 where there is none of that name."""
        return self.manifest.counts.get(split, 0)

    def read(self, split: str, rows: npt.NDArray[np.int64]) -> LatentsBatch:
        """Return rows of a split, in the order asked for. Not for several threads at once.

        Raises IndexError for a row that is not there.
        """
        reader = self._readers.get(split)
        if reader is None:
            reader = self._readers[split] = self.reader(split, RANDOM_READ_BLOCKS)
        batch = self.empty_batch(split, len(rows))
        reader.read_into(rows, batch_arrays(batch))
        return batch

    def order(self, split: str, seed: int, global_batch_size: int) -> SampleOrder:
        """Return the order in which training sees a split."""
        if not self.count(split):
            raise StepError(f"{self.folder}: the latents have no {split!r} samples; encode more pictures")
        sizes = self._blocks[split].rows
        return SampleOrder(self.count(split), seed, global_batch_size=global_batch_size, block_rows=sizes)

    def reader(self, split: str, capacity_blocks: int) -> LatentsReader:
        """Return a reader that keeps up to `capacity_blocks` blocks in memory."""
        return LatentsReader(self._blocks[split], capacity_blocks)

    def empty_batch(self, split: str, rows: int, pin_memory: bool = False) -> LatentsBatch:
        """Return memory for so many rows."""
        dtypes = {"mean": torch.float16, "std": torch.float16, "token_ids": torch.int32, "embeddings": torch.float16}
        tensors = {
            field.name: torch.empty((rows, *field.row_shape), dtype=dtypes[field.name], pin_memory=pin_memory)
            for field in self._blocks[split].fields
        }
        return LatentsBatch(tensors["mean"], tensors["std"], tensors["token_ids"], tensors.get("embeddings"))

    def _check(self, index: LatentsIndex) -> None:
        indexed = [(shard.name, shard.split, sum(shard.block_rows)) for shard in index.shards]
        listed = [(shard.name, shard.split, shard.rows) for shard in self.manifest.shards]
        totals = {split: sum(rows for _, of, rows in indexed if of == split) for split in self.manifest.counts}
        if self.manifest.format_version != FORMAT_VERSION:
            raise StepError(f"{self.folder}: format {self.manifest.format_version}, this code reads {FORMAT_VERSION}")
        if indexed != listed or totals != self.manifest.counts:
            raise StepError(f"{self.folder}: {LATENTS_INDEX_FILE} does not belong to {MANIFEST_FILE}; run encode again")


def batch_arrays(batch: LatentsBatch) -> dict[str, npt.NDArray[Any]]:
    """Return the batch's tensors as arrays over the same memory."""
    return {name: tensor.numpy() for name, tensor in batch._asdict().items() if tensor is not None}


def _load(path: Path, model: type[M]) -> M:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StepError(f"{path}: cannot be read ({error.strerror}): the latents were never finished") from None
    except ValidationError as error:
        raise StepError(f"{path}: {describe(error)[:300]}") from None


def _block_table(folder: Path, index: LatentsIndex, split: str) -> BlockTable:
    shards = [shard for shard in index.shards if shard.split == split]
    counts = [len(shard.block_rows) for shard in shards]
    return BlockTable(
        paths=tuple(folder / shard.name for shard in shards),
        shards=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
        rows=_column([shard.block_rows for shard in shards]),
        offsets=_column([shard.offsets for shard in shards]),
        sizes=_column([shard.sizes for shard in shards]),
        digests=np.array([int(text, 16) for shard in shards for text in shard.xxh3], dtype=np.uint64),
    )


def _column(lists: list[tuple[int, ...]]) -> Rows:
    return np.concatenate([np.asarray(values, dtype=np.int64) for values in lists] or [np.empty(0, np.int64)])
