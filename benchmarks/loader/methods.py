"""Each loader as an endless iterator of batches: it yields how many samples are in memory, ready for training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from benchmarks.loader.samples import Kind
from params.layout import TRAIN_SPLIT
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import HELD_BATCHES, PREFETCHED_BATCHES, LatentsLoader, Share

BATCH = 256
# What a rank holds in memory (some 100 MB) is then far above the CPU's caches and far below the data set.
LANES = 8
_FOREVER = BATCH * 1_000_000_000


def ours(folder: Path, kind: Kind) -> Iterator[int]:
    """Our loader as training runs it: shuffled, checksums on, read ahead in the background."""
    dataset = LatentsDataset(folder)
    order = dataset.order(TRAIN_SPLIT, 0, BATCH, lanes=LANES)
    for batch in LatentsLoader(dataset, order, Share(0, 1, 0, _FOREVER)):
        yield len(batch.positions)


def pread(folder: Path, kind: Kind, batches: int = PREFETCHED_BATCHES + HELD_BATCHES) -> Iterator[int]:
    """The machine's ceiling: the bytes of the same blocks, a system call each, into as many batches as are in use.

    With memory for one batch alone it is faster still, but useless: nothing leaves the CPU's cache.
    """
    table = LatentsDataset(folder).table(TRAIN_SPLIT)
    files = [os.open(folder / name, os.O_RDONLY) for name in table.names]
    size = int(table.sizes[0])
    buffers = [np.ones(size, np.uint8) for _ in range(max(1, batches * BATCH // kind.rows_per_block))]
    reads = 0
    while True:
        for block in np.random.default_rng(reads).permutation(len(table.rows)).tolist():
            count = os.preadv(files[table.shards[block]], [buffers[reads % len(buffers)]], int(table.offsets[block]))
            if count != size:
                raise OSError(f"{table.name(block)}: {count} of {size} bytes")
            reads += 1
            yield kind.rows_per_block


def stock_webdataset(folder: Path, kind: Kind) -> Iterator[int]:
    """Stock WebDataset over our own shards: a block is a batch, copied to tensors of its own; no shuffle, no check."""
    import webdataset

    shards = sorted(map(str, folder.glob("*.tar")))
    for sample in webdataset.WebDataset(shards, shardshuffle=False).repeat():
        yield len(safetensors.torch.load(sample["safetensors"])["mean"])


def plain_webdataset(folder: Path, kind: Kind) -> Iterator[int]:
    """WebDataset as its manual shows it, over .npy files: shards in one order, a shuffle buffer, no check."""
    import webdataset

    names = ["mean.npy", "std.npy", "token_ids.npy", *(["embeddings.npy"] if kind.embeddings else [])]
    shards = sorted(map(str, folder.glob("*.tar")))
    stream = webdataset.WebDataset(shards, shardshuffle=False).repeat().shuffle(1000)
    for batch in stream.decode().to_tuple(*names).batched(BATCH):
        yield len(batch[0])


def mosaicml(folder: Path, kind: Kind) -> Iterator[int]:
    """mosaicml-streaming, shuffled, through torch's DataLoader in this process."""
    from streaming import StreamingDataset

    dataset: Any = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
    while True:
        for batch in torch.utils.data.DataLoader(dataset, batch_size=BATCH, drop_last=True):
            yield len(batch["mean"])


def litdata(folder: Path, kind: Kind) -> Iterator[int]:
    """litdata, shuffled, through its own StreamingDataLoader in this process."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset: Any = StreamingDataset(str(folder), shuffle=True, drop_last=True)
    while True:
        for batch in StreamingDataLoader(dataset, batch_size=BATCH, drop_last=True, num_workers=0):
            yield len(batch["mean"])
