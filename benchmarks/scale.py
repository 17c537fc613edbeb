"""What a run costs for each row of its table: each pass over the whole set at growing sizes, and what breaks first.

    python -m benchmarks.scale [--rows 10000000] [--json]                  # growth; --rows 100000 takes a minute
    python -m benchmarks.scale --hosts "16 64 128" [--sick 1] [--stragglers 2] [--deaths 1]       # a cluster, simulated

Writes url tables, what their downloads leave, and indexes of 10^4, 10^5, ... rows to a temporary folder, and runs each
pass over them in a process of its own, on one thread: its CPU, and by how much its peak memory grew. What they are at
2e9 rows lies on the straight line through the last two sizes; the host and the time limit are those of
params/sd2_base.yaml. Memory is known on Linux alone.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from benchmarks import harness, scale_cluster
from params.layout import LATENTS_SHARD_PATTERN, TRAIN_SPLIT
from params.programs import DownloadArguments
from params.settings import Settings, load_settings
from pipeline_definition.checks.scale import GIB, memory_bytes_of
from pipeline_definition.jobs.instances import instance
from steps.data.causes import Cause
from steps.data.collecting.collection import Collection
from steps.data.collecting.fates import SUCCESS
from steps.data.encoding.buckets import buckets_of
from steps.data.encoding.plan import Selection, SourceSummary, make_plan
from steps.data.latents.latents_manifest import BuiltShard, IndexedShard, LatentsShard
from steps.data.latents.order import SampleOrder
from steps.data.loading.latents import LatentsDataset
from steps.data.pictures.perceptual_hash import COLOUR_BYTES
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.limits import limits_of
from steps.data.shards.shards_artifact import ShardRecord, VerifiedShard, shard_stem
from steps.data.shards.verification import write_samples
from steps.data.storage import Storage
from steps.data.tables.row_files import BATCH_ROWS
from steps.training.random_latents import write_listings
from steps.training.utilisation import peak_bytes, reset_peak, resident_bytes

Figures = tuple[float, float]
"""CPU-seconds, and bytes."""
Run = Callable[[Path, int], None]
"""What is done in a folder for so many rows."""

SMALLEST, WHOLE_SET, PART_ROWS = 10_000, 2_000_000_000, 1_000_000
SHARD_ROWS, BLOCK_ROWS, LATENTS_ROWS, BATCH = 10_000, 256, 16_384, 2048
# A pass has run once over so many rows before it is measured, so that memory for a batch does not count.
WARM_UP_ROWS: Final = 2 * BATCH_ROWS
CPU: Final = torch.device("cpu")


def main(argv: list[str]) -> int:
    options = harness.parser(
        "benchmarks.scale",
        __doc__,
        rows=(10_000_000, "rows of the largest set that is measured"),
        hosts=("", "simulate clusters of so many hosts instead, such as '16 64 128'"),
        **scale_cluster.FLAGS,
    ).parse_args(argv)
    if options.hosts:
        result = scale_cluster.simulated([int(word) for word in options.hosts.split()], options)
    else:
        sizes = [SMALLEST * 10**power for power in range(10) if SMALLEST * 10**power <= options.rows]
        if len(sizes) < 2:
            raise SystemExit(f"error: --rows {options.rows} leaves no two sizes to compare; set it to 100000 or more")
        result = growth(sizes, load_settings(harness.ROOT / "params" / "sd2_base.yaml"))
    harness.print_result(result, options.json)
    return 0


def growth(sizes: Sequence[int], settings: Settings) -> dict[str, Any]:
    """Measure every pass at every size; return a line for each, and which of them first has no room."""
    lines = []
    for name in PASSES:
        figures = [measured(name, size) for size in sizes]
        lines.append({"pass": name, **growth_line(PASSES[name][0], sizes, figures, settings)})
    first = min(lines, key=lambda line: line["breaks_at_rows"])
    return {"growth": lines, "breaks_first": f"{first['pass']}, by {first['breaks_by']}"}


def growth_line(section: str, sizes: Sequence[int], figures: Sequence[Figures], settings: Settings) -> dict[str, Any]:
    """Return what a pass costs, also at 2e9 rows, and at how many rows the time or memory of its host ends."""
    job = getattr(settings, section).job
    # Every rank of a training host makes the pass.
    ranks = instance(job.instance_type).ranks if section == "train" else 1
    room = {"time": job.max_runtime_s, "memory": memory_bytes_of(job.instance_type) / ranks}
    last, slope = np.array(figures[-1]), np.maximum(0.0, np.subtract(*figures[:-3:-1])) / (sizes[-1] - sizes[-2])
    whole_s, whole_bytes = last + slope * (WHOLE_SET - sizes[-1])
    with np.errstate(divide="ignore"):
        ends = dict(zip(room, sizes[-1] + (list(room.values()) - last) / slope, strict=True))
    columns = {f"us_a_row_at_{size:,}": 1e6 * cpu / size for size, (cpu, _) in zip(sizes, figures, strict=True)} | {
        "bytes_a_row": slope[1],
        "cpu_h_at_2e9": whole_s / 3600,
        "GiB_at_2e9": whole_bytes * ranks / GIB,
        "host_GiB": room["memory"] * ranks / GIB,
        "breaks_at_rows": min(ends.values()),
    }
    rounded = {name: float(f"{value:.2g}") for name, value in columns.items()}
    return rounded | {"breaks_by": min(ends, key=ends.__getitem__), "host": job.instance_type}


def measured(name: str, rows: int) -> Figures:
    """Return the CPU-seconds of a pass and the bytes by which its peak grew, in a process that has run it before."""
    with tempfile.TemporaryDirectory() as folder:
        for size in (WARM_UP_ROWS, rows):
            (place := Path(folder) / str(size)).mkdir()
            PASSES[name][2](place, size)
        [figures] = harness.in_new_processes(run_measured, [(name, folder, rows)], OMP_NUM_THREADS="1")
        return figures


def run_measured(name: str, folder: str, rows: int) -> Figures:
    _, run, _ = PASSES[name]
    run(Path(folder) / str(WARM_UP_ROWS), WARM_UP_ROWS)
    pa.set_cpu_count(1)
    reset_peak(CPU)
    start_s, start_bytes = time.process_time(), resident_bytes()
    run(Path(folder) / str(rows), rows)
    return time.process_time() - start_s, max(0, peak_bytes(CPU) - start_bytes)


# Download: a fiftieth of the rows repeats the url above it, a tenth is unsafe, a tenth of the others failed.


def arguments(folder: Path, **more: Any) -> DownloadArguments:
    places = {"url_table": str(folder / "table.parquet"), "shards_uri": str(folder / "shards")}
    return DownloadArguments(**places, url_column="URL", caption_column="TEXT", max_unsafe=0.1, **more)


def urls_of(numbers: Any) -> Any:
    of = numbers - (numbers % 50 == 49)
    hosts, texts = (pa.array(part).cast(pa.string()) for part in (of % 9973, of))
    return pc.binary_join_element_wise("https://cdn", hosts, ".example.com/pictures/", texts, ".jpg", "")


def captions_of(numbers: Any) -> Any:
    return pc.binary_join_element_wise("number ", pa.array(numbers).cast(pa.string()), " of many on a table", "")


def write_table(folder: Path, rows: int) -> None:
    schema = pa.schema({"URL": pa.string(), "TEXT": pa.string(), "punsafe": pa.float64()})
    with pq.ParquetWriter(folder / "table.parquet", schema) as file:
        for first in range(0, rows, PART_ROWS):
            numbers = np.arange(first, min(first + PART_ROWS, rows))
            unsafe = np.where(numbers % 10 == 5, 0.5, 0.01)
            file.write_table(pa.table([urls_of(numbers), captions_of(numbers), unsafe], schema=schema))


def write_shards(folder: Path, rows: int) -> None:
    """Write a url table, and what its whole download would have left beside the tars; of 100 pictures one is a copy."""
    write_table(folder, rows)
    storage, settings = Storage(str(folder / "shards")), arguments(folder)
    storage.make()
    made = {"plan_digest": Collection(settings).artifact.parts_digest, "limits": limits_of(settings, Blocklist())}
    numbers = np.arange(rows)
    numbers = numbers[(numbers % 50 != 49) & (numbers % 10 != 5)]
    for index, first in enumerate(range(0, len(numbers), SHARD_ROWS)):
        part, stem = numbers[first : first + SHARD_ROWS], shard_stem(index)
        is_kept = part % 10 != 3
        sides = {f"original_{side}": np.full(len(part), 512, np.int32) for side in ("width", "height")}
        known = pa.table({"key": part.astype(str), "url": urls_of(part), "caption": captions_of(part), **sides})
        status = pa.array(np.where(is_kept, SUCCESS, "failed_to_download"))
        message = pa.array(np.where(is_kept, None, Cause.TIMEOUT.value).tolist(), pa.string())
        fates = known.append_column("status", status).append_column("error_message", message)
        pq.write_table(fates, folder / "shards" / f"{stem}.parquet")
        write_samples(storage, stem, pictures(known.filter(pa.array(is_kept)), index))
        storage.write(f"{stem}.tar", b"")
        failed = {Cause.TIMEOUT.value: int((~is_kept).sum())}
        counts = {"rows": len(part), "samples": int(is_kept.sum()), "failed": failed}
        ShardRecord(shard=VerifiedShard(name=f"{stem}.tar", bytes=0, sha256="", **counts), **made).write(storage)


def pictures(kept: Any, seed: int) -> Any:
    """Return a table of samples whose pictures are random, but for copies of the one before."""
    random, of = np.random.default_rng(seed), np.arange(len(kept))
    of -= of % 100 == 7
    digests, layouts = ([random.bytes(size) for _ in of] for size in (32, COLOUR_BYTES))
    columns = {
        "sha256": [digests[place].hex() for place in of],
        "perceptual_hash": random.integers(0, 2**64 - 1, len(of), np.uint64)[of],
        "colour_layout": pa.array([layouts[place] for place in of], pa.binary(COLOUR_BYTES)),
        "dropped": pa.nulls(len(of), pa.string()),
    }
    return pa.table({name: kept[name] for name in kept.column_names} | columns)


def screen(folder: Path, rows: int) -> None:
    """Decide about every row of a table of which nothing was fetched."""
    assert Collection(arguments(folder)).rows_left({}) == rows - rows // 50 - rows // 10


def resume(folder: Path, rows: int) -> None:
    """Find the shards that are there, and that no row is left."""
    collection = Collection(arguments(folder))
    assert collection.rows_left(collection.finished()) == 0


def mark(folder: Path, rows: int, dedup: str = "exact", distance: int = 0) -> None:
    """Screen, read every fate and every table of samples, mark copies, count all of it."""
    collection = Collection(arguments(folder, dedup=dedup, max_hash_distance=distance))
    assert collection.manifest(collection.finished()).ledger.kept > 0.7 * rows


def plan(folder: Path, rows: int) -> None:
    """Plan the latents from what the workers told of their shards, with a thousandth held out."""
    shapes = buckets_of(256, 2.0, 64)
    samples = (SHARD_ROWS // len(shapes.sizes),) * len(shapes.sizes)
    summaries = [
        SourceSummary(samples, tuple((7919 * number + row, row, 0) for row in range(10)))
        for number in range(rows // SHARD_ROWS)
    ]
    made = make_plan([""] * len(summaries), summaries, Selection(0.001, shapes), 30_000)
    assert list(made.shards(LATENTS_ROWS, BLOCK_ROWS)) and made.model_dump_json()


def order(folder: Path, rows: int) -> None:
    """Build the order of training, and its first stretch."""
    blocks = np.full(math.ceil(rows / BLOCK_ROWS), BLOCK_ROWS)
    made = SampleOrder(int(blocks.sum()), 0, global_batch_size=BATCH, block_rows=blocks)
    next(made.stretches(0, 0))


def write_index(folder: Path, rows: int) -> None:
    """Write manifest and index of latents, as Encode's head does at its end."""
    built, blocks = [], LATENTS_ROWS // BLOCK_ROWS
    for index in range(math.ceil(rows / LATENTS_ROWS)):
        name = LATENTS_SHARD_PATTERN.format(split=TRAIN_SPLIT, index=index)
        digests = tuple(f"{number:016x}" for number in range(index * blocks, (index + 1) * blocks))
        places = {"offsets": tuple(range(512, 512 + blocks)), "sizes": (4_269_184,) * blocks, "xxh3": digests}
        indexed = IndexedShard(name=name, split=TRAIN_SPLIT, block_rows=(BLOCK_ROWS,) * blocks, **places)
        listed = LatentsShard(name=name, split=TRAIN_SPLIT, rows=LATENTS_ROWS, bytes=1, sha256="0" * 64)
        built.append(BuiltShard(listed=listed, indexed=indexed))
    known = {"latent_shape": (4, 32, 32), "scaling_factor": 1.0, "caption_length": 77, "latents_mean": 0.0}
    moments = {"latents_std": 1.0, "channel_means": (0.0,) * 4, "channel_stds": (1.0,) * 4, "resolution_px": 256}
    write_listings(folder, built, **known, **moments)


def read_index(folder: Path, rows: int) -> None:
    """Open the latents, as every rank does."""
    assert LatentsDataset(folder).table(TRAIN_SPLIT).count >= rows


def write_nothing(folder: Path, rows: int) -> None: ...


PASSES: Final[dict[str, tuple[str, Run, Run]]] = {
    "screening": ("download", screen, write_table),
    "resume": ("download", resume, write_shards),
    "exact duplicates": ("download", mark, write_shards),
    "near duplicates": ("download", partial(mark, dedup="perceptual", distance=3), write_shards),
    "plan of Encode": ("encode", plan, write_nothing),
    "latents index, written": ("encode", write_index, write_nothing),
    "latents index, read": ("train", read_index, write_index),
    "order of training": ("train", order, write_nothing),
}
"""Section of the parameter set with the hosts on which it runs, the pass, and what writes what it reads."""

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
