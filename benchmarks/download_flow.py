"""What a picture costs once a download flows: shards made in turns by the step's processes and by img2dataset's.

    python -m benchmarks.download_flow WEB URI [--turns 6] [--rows 500] [--processes 2] [--threads 32]

Reads pictures from the web at WEB (benchmarks.servers), writes shards under URI, and prints JSON: for `step` and `same`
seconds and CPU-seconds for each picture, one pair for each turn. The processes of both sides run all the time,
and in a turn those of one side make two shards each. Both resize, crop, hash and write alike; the step also guards,
bounds, reads its shard back and records it. `python -m benchmarks.download` runs this for its figures.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks import harness
from params.programs import DownloadArguments
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.guarded_downloader import ShardMaker, arrow_file
from steps.data.storage import Storage
from steps.data.tables.url_table import TableSlice

IMAGE_SIZE_PX = 256
# Per process: one may read a shard back while the others download, as in the step.
SHARDS_OF_TURN = 2

_make: Callable[[TableSlice], object] | None = None


def main(argv: list[str]) -> int:
    flags = harness.parser(
        "benchmarks.download_flow",
        __doc__,
        turns=(6, "turns of each side"),
        rows=(500, "rows of a shard"),
        processes=(2, "processes of each side"),
        threads=(32, "connections"),
    )
    flags.add_argument("web", help="address of the pictures")
    flags.add_argument("uri", help="where the shards go")
    options = flags.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(options.processes, context, begin, (name, options)) for name in ("step", "same")}
    turns = {name: functools.partial(take_turn, pool, options) for name, pool in pools.items()}
    figures = harness.take_turns(turns, options.turns, uncounted=1)
    for pool in pools.values():
        pool.shutdown()
    print(json.dumps(figures))
    return 0


def take_turn(pool: ProcessPoolExecutor, options: argparse.Namespace, number: int) -> tuple[float, float]:
    """Make some shards on each process; return seconds and CPU-seconds of the processes for each picture."""
    count = SHARDS_OF_TURN * options.processes
    started_s = time.perf_counter()
    cpu_s = sum(pool.map(work, [rows_of(options, number * count + shard) for shard in range(count)]))
    elapsed_s, rows = time.perf_counter() - started_s, count * options.rows
    return elapsed_s / rows, cpu_s / rows


def begin(name: str, options: argparse.Namespace) -> None:
    """Set up a worker process."""
    global _make
    # As the step's workers do: webdataset would import it needlessly.
    sys.modules["torch"] = None  # type: ignore[assignment]
    _make = {"step": step_maker, "same": plain_maker}[name](options)


def work(rows: TableSlice) -> float:
    """Make a shard; return its CPU-seconds."""
    assert _make is not None, "the pool's initializer has run"
    started_cpu_s = time.process_time()
    _make(rows)
    return time.process_time() - started_cpu_s


def rows_of(options: argparse.Namespace, number: int) -> TableSlice:
    first = number * options.rows
    urls = [f"{options.web}/{row}.jpg" for row in range(first, first + options.rows)]
    return TableSlice(number, first, list(urls), [f"picture {row}" for row in range(len(urls))])


def step_maker(options: argparse.Namespace) -> Callable[[TableSlice], object]:
    arguments = DownloadArguments(
        url_table="",
        shards_uri=f"{options.uri}/step",
        image_size_px=IMAGE_SIZE_PX,
        threads=options.threads,
        samples_per_shard=options.rows,
        allowed_hosts=(options.web.removeprefix("http://"),),
    )
    Storage(arguments.shards_uri).make()
    maker = ShardMaker(arguments, "benchmark", Blocklist())
    maker.prepare()
    return maker.make


def plain_settings(options: argparse.Namespace, rows_per_shard: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what img2dataset needs to make the step's shards: of its resizer, and of its downloader."""
    resizer = {
        "image_size": IMAGE_SIZE_PX,
        "resize_mode": "center_crop",
        "min_image_size": 64,
        "max_aspect_ratio": 3.0,
    }
    downloader = {
        "thread_count": options.threads,
        "number_sample_per_shard": rows_per_shard,
        "extract_exif": False,
        "retries": 1,
    }
    return resizer, downloader


def plain_maker(options: argparse.Namespace) -> Callable[[TableSlice], object]:
    """Return img2dataset's own downloader, as its main program makes it."""
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    uri = f"{options.uri}/same"
    Storage(uri).make()
    of_resizer, of_downloader = plain_settings(options, options.rows)
    downloader: Any = Downloader(
        **of_downloader,
        sample_writer_class=WebDatasetSampleWriter,
        resizer=Resizer(**of_resizer, resize_only_if_bigger=False),
        save_caption=True,
        output_folder=uri,
        column_list=["caption", "url"],
        timeout=10,
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        user_agent_token=None,
        disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
    )

    def make(rows: TableSlice) -> None:
        with arrow_file(rows) as address:
            downloader.download_shard((rows.index, address))

    return make


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
