"""The training loader against plain WebDataset, in one interleaved run over the same samples from the page cache.

    python -m benchmarks.loader [--json] [--rounds 5] [--turn-s 0.5] [--size 1.0]

Writes the samples to a temporary folder in each loader's format and reads them in turns, in this process. Prints
samples per CPU-second (256 px moments with token ids, and with cached caption embeddings too), and as ratios the
medians over the rounds of ours to plain WebDataset (.npy files for each sample) and to pread of the same bytes, which
is the machine's ceiling.
"""

import functools
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from params.layout import LATENTS_SHARD_PATTERN, TRAIN_SPLIT
from steps.data.latents.block import Array, to_bytes
from steps.data.latents.latents_manifest import build_shard
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import HELD_BATCHES, PREFETCHED_BATCHES, LatentsLoader, Share
from steps.training.random_latents import write_listings

OURS, PLAIN, PREAD = "ours", "plain webdataset", "pread"
CAPTION_LENGTH = 77
EMBEDDING_WIDTH = 1024
RIVAL_SHARD_SAMPLES = 1024
BATCH = 256
# What a rank holds in memory (some 100 MB) is then far above the CPU's caches and far below the data set.
LANES = 8
FOREVER = BATCH * 1_000_000_000
# Batches taken before the clock starts: those read ahead while others were measured would cost nothing.
UNCOUNTED_BATCHES = 8
IDLE_S = 0.02
# Float16 numbers that do not compress: samples are cut from it, since drawing gigabytes takes longer than reading them.
PATTERN = np.random.default_rng(0).standard_normal(1 << 23, dtype=np.float32).astype(np.float16)


@dataclass(frozen=True)
class Kind:
    name: str
    embeddings: bool
    rival_samples: int
    """Far beyond the CPU's caches, yet quick to write one by one."""
    rows_per_block: int
    rows_per_shard: int
    shards: int = 8
    latent_shape: tuple[int, int, int] = (4, 32, 32)

    def scaled(self, scale: float) -> "Kind":
        shards, rivals = max(2, round(self.shards * scale)), max(512, round(self.rival_samples * scale))
        return replace(self, shards=shards, rival_samples=rivals)

    @property
    def sample_bytes(self) -> int:
        embeddings = 2 * CAPTION_LENGTH * EMBEDDING_WIDTH if self.embeddings else 0
        return 2 * 2 * math.prod(self.latent_shape) + 4 * CAPTION_LENGTH + embeddings


KINDS = (
    Kind("tokens", False, rival_samples=8_192, rows_per_block=256, rows_per_shard=8_192),
    Kind("embeddings", True, rival_samples=2_048, rows_per_block=32, rows_per_shard=512),
)


def main(argv: list[str]) -> int:
    options = harness.parser(
        "benchmarks.loader",
        __doc__,
        rounds=(5, "turns of all loaders"),
        turn_s=(0.5, "CPU-seconds of one turn"),
        size=(1.0, "fraction of the samples (1.0: 65,536 and 4,096)"),
    ).parse_args(argv)
    warnings.simplefilter("ignore")  # webdataset leaves files open
    kinds = [kind.scaled(options.size) for kind in KINDS]
    rates = {kind.name: compare(kind, options.rounds, options.turn_s) for kind in kinds}
    harness.print_result(summary(rates), options.json)
    return 0


def compare(kind: Kind, rounds: int, turn_cpu_s: float) -> dict[str, list[float]]:
    """Return every loader's samples per CPU-second; the first turn of each is not counted."""
    with tempfile.TemporaryDirectory() as name:
        own, plain = Path(name) / "ours", Path(name) / "plain"
        write_ours(own, kind)
        write_plain_webdataset(plain, kind)
        batches = {PREAD: pread(own, kind), OURS: ours(own), PLAIN: plain_webdataset(plain, kind)}
        sides = {name: functools.partial(take_turn, its, turn_cpu_s) for name, its in batches.items()}
        return harness.take_turns(sides, rounds, uncounted=1)


def tensors(kind: Kind, first: int, rows: int) -> dict[str, Array]:
    """Return the tensors of rows [first, first + rows); token ids name the row."""
    arrays: dict[str, Array] = {
        "mean": noise((rows, *kind.latent_shape), first),
        "std": noise((rows, *kind.latent_shape), first + 7),
        "token_ids": np.arange(first, first + rows, dtype=np.int32)[:, None] + np.zeros(CAPTION_LENGTH, np.int32),
    }
    if kind.embeddings:
        arrays["embeddings"] = noise((rows, CAPTION_LENGTH, EMBEDDING_WIDTH), first + 13)
    return arrays


def noise(shape: tuple[int, ...], seed: int) -> Array:
    start = (seed * 7919) % (len(PATTERN) - 1)
    return np.take(PATTERN, np.arange(start, start + math.prod(shape)), mode="wrap").reshape(shape)


def write_ours(folder: Path, kind: Kind) -> None:
    folder.mkdir()
    built, channels = [], kind.latent_shape[0]
    for number in range(kind.shards):
        first = number * kind.rows_per_shard
        starts = range(first, first + kind.rows_per_shard, kind.rows_per_block)
        name = LATENTS_SHARD_PATTERN.format(split=TRAIN_SPLIT, index=number)
        blocks = (to_bytes(tensors(kind, start, kind.rows_per_block)) for start in starts)
        content, shard = build_shard(name, TRAIN_SPLIT, blocks)
        (folder / name).write_bytes(content)
        built.append(shard)
    write_listings(
        folder,
        built,
        resolution_px=8 * max(kind.latent_shape),
        latent_shape=kind.latent_shape,
        scaling_factor=1.0,
        caption_length=CAPTION_LENGTH,
        caption_embeddings=kind.embeddings,
        embedding_width=EMBEDDING_WIDTH,
        rows_per_block=kind.rows_per_block,
        latents_mean=0.0,
        latents_std=1.0,
        channel_means=(0.0,) * channels,
        channel_stds=(1.0,) * channels,
    )


def write_plain_webdataset(folder: Path, kind: Kind) -> None:
    """Write tars with an .npy file for each tensor of each sample."""
    import webdataset

    folder.mkdir()
    for number, first in enumerate(range(0, kind.rival_samples, RIVAL_SHARD_SAMPLES)):
        block = tensors(kind, first, min(RIVAL_SHARD_SAMPLES, kind.rival_samples - first))
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as tar:
            for row in range(len(block["mean"])):
                arrays = {f"{name}.npy": array[row] for name, array in block.items()}
                tar.write({"__key__": f"{first + row:08d}", **arrays})


def ours(folder: Path) -> Iterator[int]:
    """Our loader as training runs it: shuffled, checksums on, read ahead in the background."""
    dataset = LatentsDataset(folder)
    order = dataset.order(TRAIN_SPLIT, 0, BATCH, max_lanes=LANES)
    for batch in LatentsLoader(dataset.blocks(TRAIN_SPLIT), order, Share(0, 1, 0, FOREVER)):
        yield len(batch.positions)


def pread(folder: Path, kind: Kind) -> Iterator[int]:
    """The machine's ceiling: the bytes of the same blocks, a system call each, into as many batches as are in use."""
    table = LatentsDataset(folder).table(TRAIN_SPLIT)
    files = {name: os.open(folder / name, os.O_RDONLY) for name in table.names}
    count = max(1, (PREFETCHED_BATCHES + HELD_BATCHES) * BATCH // kind.rows_per_block)
    buffers = [np.ones(int(table.sizes[0]), np.uint8) for _ in range(count)]
    reads = 0
    while True:
        for block in np.random.default_rng(reads).permutation(len(table.rows)).tolist():
            os.preadv(files[table.shard(block)], [buffers[reads % count]], int(table.offsets[block]))
            reads += 1
            yield kind.rows_per_block


def plain_webdataset(folder: Path, kind: Kind) -> Iterator[int]:
    """WebDataset as its manual shows it, over .npy files: shards in one order, a shuffle buffer, no check."""
    import webdataset

    names = ["mean.npy", "std.npy", "token_ids.npy", *(["embeddings.npy"] if kind.embeddings else [])]
    shards = sorted(map(str, folder.glob("*.tar")))
    stream = webdataset.WebDataset(shards, shardshuffle=False).repeat().shuffle(1000)
    for batch in stream.decode().to_tuple(*names).batched(BATCH):
        yield len(batch[0])


def take_turn(batches: Iterator[int], turn_cpu_s: float, _: int) -> float:
    for _ in range(UNCOUNTED_BATCHES):
        next(batches)
    samples, start_s = 0, time.process_time()
    while (cpu_s := time.process_time() - start_s) < turn_cpu_s:
        samples += next(batches)
    # Threads that read ahead finish, so that the next loader does not pay for them.
    before = -math.inf
    while (now := time.process_time()) - before >= IDLE_S / 10:
        before = now
        time.sleep(IDLE_S)
    return samples / cpu_s


def summary(results: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    ratios = {}
    for kind, rates in results.items():
        ratios[f"{kind}_vs_plain_webdataset"] = harness.median_ratio(rates[OURS], rates[PLAIN])
        ratios[f"{kind}_vs_pread"] = harness.median_ratio(rates[OURS], rates[PREAD])
    medians = {kind: {name: statistics.median(its) for name, its in rates.items()} for kind, rates in results.items()}
    sample_bytes = {kind.name: kind.sample_bytes for kind in KINDS}
    return {"ratios": ratios, "samples_per_cpu_s": medians, "sample_bytes": sample_bytes}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
