"""How the loader starts over many shards: time and memory until the data set is open, and until the first batch.

    python -m benchmarks.loader --scale [--json]

Writes one real shard under many names, with the manifest and the index that Encode would write for them. Each count of
shards is opened in a process of its own, as rank 0 of 8 of a training with a global batch of 2,048.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import in_new_processes
from benchmarks.loader import loaders
from benchmarks.loader.loaders import KINDS
from params.layout import LATENTS_INDEX_FILE, LATENTS_SHARD_PATTERN, TRAIN_SPLIT
from steps.data.latents.latents_manifest import LatentsIndex
from steps.data.latents.latents_shard import BuiltShard
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import LatentsLoader, Share

COUNTS = (100, 1_000, 10_000)
GLOBAL_BATCH, RANKS = 2048, 8
KIND = KINDS[0].scaled(0.0)


def scale() -> dict[str, Any]:
    """Return one row of figures for each count of shards, and how they grow from the fewest shards to the most."""
    with tempfile.TemporaryDirectory() as name:
        folder = loaders.write_ours(Path(name) / "shard", KIND)
        rows = []
        for count in COUNTS:
            multiply(folder, Path(name) / str(count), count)
            rows += in_new_processes(start, [(Path(name) / str(count),)])
    few, many = rows[0], rows[-1]
    ratios = {name: many[name] / few[name] for name in ("shards", "open_s", "first_batch_s")}
    ratios["first_batch_memory"] = many["first_batch_memory_mb"] / few["first_batch_memory_mb"]
    return {"ratios": ratios, "scale": rows}


def multiply(source: Path, folder: Path, count: int) -> None:
    folder.mkdir()
    listed = LatentsDataset(source).manifest.shards[0]
    indexed = LatentsIndex.model_validate_json((source / LATENTS_INDEX_FILE).read_bytes()).shards[0]
    built = []
    for number in range(count):
        named = {"name": LATENTS_SHARD_PATTERN.format(split=TRAIN_SPLIT, index=number)}
        (folder / named["name"]).symlink_to(source / listed.name)
        built.append(BuiltShard(listed=listed.model_copy(update=named), indexed=indexed.model_copy(update=named)))
    loaders.write_listing(folder, built, KIND)


def start(folder: Path) -> dict[str, Any]:
    """Open the data set and take the first batch, in a process that has done nothing else."""
    process = psutil.Process()
    before, start_s = process.memory_info().rss, time.perf_counter()
    dataset = LatentsDataset(folder)
    open_s = time.perf_counter() - start_s
    opened = process.memory_info().rss
    order = dataset.order(TRAIN_SPLIT, 0, GLOBAL_BATCH)
    loader = LatentsLoader(dataset, order, Share(0, RANKS, 0, 1000 * GLOBAL_BATCH))
    next(iter(loader))
    return {
        "shards": len(dataset.manifest.shards),
        "blocks": len(dataset.table(TRAIN_SPLIT).rows),
        "samples": dataset.count(TRAIN_SPLIT),
        "index_mb": (folder / LATENTS_INDEX_FILE).stat().st_size / 1e6,
        "open_s": open_s,
        "open_memory_mb": (opened - before) / 1e6,
        "first_batch_s": time.perf_counter() - start_s - open_s,
        "first_batch_memory_mb": (process.memory_info().rss - opened) / 1e6,
    }
