"""What a picture costs once a download flows: shards made in turns by the step's processes and by img2dataset's.

Reads pictures from a web (benchmarks/web.py) and writes shards under a prefix. The processes of both sides run all
the time, and in a turn those of one side make two shards each. Both resize, crop, hash and write alike; the step also
guards, bounds, reads its shard back and records it. `python -m benchmarks.download` runs this for its figures.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Turns, take_turns
from params.programs import DownloadArguments
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.guarded_downloader import ShardMaker, arrow_file
from steps.data.storage import Storage
from steps.data.tables.url_table import TableSlice

IMAGE_SIZE_PX = 256
# Per process: one may read a shard back while the others download, as in the step.
SHARDS_OF_TURN = 2

_make: Callable[[TableSlice], object] | None = None


@dataclass(frozen=True)
class Flow:
    web: str
    uri: str
    rows: int
    """Of a shard."""
    threads: int

    def shard(self, number: int) -> TableSlice:
        first = number * self.rows
        urls = [f"{self.web}/{row}.jpg" for row in range(first, first + self.rows)]
        return TableSlice(number, first, list(urls), [f"picture {row}" for row in range(len(urls))])


def measure_flow(options: argparse.Namespace, web: str, uri: str, rows: int) -> dict[str, Turns]:
    """Return for `step` and `same` seconds and CPU-seconds for each picture, one pair for each turn."""
    flow, context = Flow(web, uri, rows, options.threads), multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        sides = {}
        for name, make in (("step", step_maker), ("same", plain_maker)):
            pool = stack.enter_context(ProcessPoolExecutor(options.processes, context, begin, (make, flow)))
            sides[name] = functools.partial(take_turn, pool, flow, SHARDS_OF_TURN * options.processes)
        return take_turns(sides, options.turns, uncounted=1)


def take_turn(pool: ProcessPoolExecutor, flow: Flow, count: int, number: int) -> tuple[float, float]:
    """Make some shards on each process; return seconds and CPU-seconds of the processes for each picture."""
    started_s = time.perf_counter()
    cpu_s = sum(pool.map(work, [flow.shard(number * count + shard) for shard in range(count)]))
    elapsed_s, rows = time.perf_counter() - started_s, count * flow.rows
    return elapsed_s / rows, cpu_s / rows


def begin(maker: Callable[[Flow], Callable[[TableSlice], object]], flow: Flow) -> None:
    global _make
    warnings.simplefilter("ignore")  # img2dataset's libraries have much to say
    # As the step's workers do: webdataset would import it needlessly.
    sys.modules["torch"] = None  # type: ignore[assignment]
    _make = maker(flow)


def work(rows: TableSlice) -> float:
    assert _make is not None, "the pool's initializer has run"
    started_cpu_s = time.process_time()
    _make(rows)
    return time.process_time() - started_cpu_s


def step_maker(flow: Flow) -> Callable[[TableSlice], object]:
    arguments = DownloadArguments(
        url_table="",
        shards_uri=f"{flow.uri}/step",
        image_size_px=IMAGE_SIZE_PX,
        threads=flow.threads,
        samples_per_shard=flow.rows,
        allowed_hosts=(flow.web.removeprefix("http://"),),
    )
    Storage(arguments.shards_uri).make()
    maker = ShardMaker(arguments, "benchmark", Blocklist())
    maker.prepare()
    return maker.make


def plain_settings(threads: int, rows_per_shard: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what img2dataset needs to make the step's shards: of its resizer, and of its downloader."""
    resizer = {
        "image_size": IMAGE_SIZE_PX,
        "resize_mode": "center_crop",
        "min_image_size": 64,
        "max_aspect_ratio": 3.0,
    }
    downloader = {
        "thread_count": threads,
        "number_sample_per_shard": rows_per_shard,
        "extract_exif": False,
        "retries": 1,
    }
    return resizer, downloader


def plain_maker(flow: Flow) -> Callable[[TableSlice], object]:
    """Return img2dataset's own downloader, as its main program makes it."""
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    uri = f"{flow.uri}/same"
    Storage(uri).make()
    of_resizer, of_downloader = plain_settings(flow.threads, flow.rows)
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
