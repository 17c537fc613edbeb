"""What a picture costs once a download flows: shards made in turns by the step's processes and by img2dataset's.

    python -m benchmarks.download [--json] [--turns 6] [--processes 2] [--threads 32]

Serves pictures (shapes/web.py) and an S3 API (moto) on loopback, each in a process of its own; the processes of both
sides run all the time, and in a turn those of one side make two shards each. Prints images/s and CPU-ms for each image,
and the ratios of docs/benchmarks.md, medians within a turn.
"""

import argparse
import functools
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from PIL import Image

from benchmarks import harness
from benchmarks.harness import Turns
from params.files import write_bytes
from params.programs import DownloadArguments
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.guarded_downloader import ShardMaker, arrow_file
from steps.data.tables.url_table import TableSlice

BUCKET = "benchmark"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
PICTURES = 64
SAMPLES_PER_SHARD = 500
IMAGE_SIZE_PX = 256
# Per process: one may read a shard back while the others download, as in the step.
SHARDS_OF_TURN = 2

Make = Callable[[TableSlice], object]
_make: Make | None = None


def main(argv: list[str]) -> int:
    options = harness.parser(
        "benchmarks.download",
        __doc__,
        turns=(6, "turns of each side"),
        processes=(2, "processes of each side"),
        threads=(32, "connections of each"),
    ).parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for number in range(PICTURES):
            write_bytes(Path(folder) / "pictures" / f"{number}.jpg", picture(number))
        quiet: dict[str, Any] = {"log": subprocess.DEVNULL, **ENVIRONMENT}
        pictures = [sys.executable, "-m", "shapes", "serve", "--folder", folder, "--port", "{port}"]
        web, _ = stack.enter_context(harness.serving(pictures, "/pictures/0.jpg", **quiet))
        store = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}"]
        s3, _ = stack.enter_context(harness.serving(store, "", **quiet))
        os.environ |= {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3}
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        sides = measure(options, web)
    harness.print_result(results(sides, options), options.json)
    return 0


def picture(number: int) -> bytes:
    """Return a JPEG of 480 x 360 with detail, some 60 KB: about what LAION's have."""
    coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((480, 360), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def shard(web: str, number: int) -> TableSlice:
    urls: list[str | None] = [f"{web}/pictures/{row % PICTURES}.jpg" for row in range(SAMPLES_PER_SHARD)]
    return TableSlice(number, number * SAMPLES_PER_SHARD, urls, [f"picture {row}" for row in range(len(urls))])


def measure(options: argparse.Namespace, web: str) -> dict[str, Turns]:
    """Return for `step` and `same` seconds and CPU-seconds for each picture, one pair for each turn."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        sides = {}
        for name, maker in (("step", step_maker), ("same", plain_maker)):
            begun = (maker, web, options.threads)
            pool = stack.enter_context(ProcessPoolExecutor(options.processes, context, begin, begun))
            sides[name] = functools.partial(take_turn, pool, web, SHARDS_OF_TURN * options.processes)
        return harness.take_turns(sides, options.turns, uncounted=1)


def take_turn(pool: ProcessPoolExecutor, web: str, count: int, number: int) -> tuple[float, float]:
    """Make some shards on each process; return seconds and CPU-seconds of the processes for each picture."""
    started_s = time.perf_counter()
    cpu_s = sum(pool.map(work, [shard(web, number * count + place) for place in range(count)]))
    elapsed_s, rows = time.perf_counter() - started_s, count * SAMPLES_PER_SHARD
    return elapsed_s / rows, cpu_s / rows


def begin(maker: Callable[[str, int], Make], web: str, threads: int) -> None:
    global _make
    warnings.simplefilter("ignore")  # img2dataset's libraries have much to say
    # As the step's workers do: webdataset would import it needlessly.
    sys.modules["torch"] = None  # type: ignore[assignment]
    _make = maker(web, threads)


def work(rows: TableSlice) -> float:
    assert _make is not None, "the pool's initializer has run"
    started_cpu_s = time.process_time()
    _make(rows)
    return time.process_time() - started_cpu_s


def step_maker(web: str, threads: int) -> Make:
    arguments = DownloadArguments(
        url_table="",
        shards_uri=f"s3://{BUCKET}/step",
        image_size_px=IMAGE_SIZE_PX,
        threads=threads,
        samples_per_shard=SAMPLES_PER_SHARD,
        allowed_hosts=(web.removeprefix("http://"),),
    )
    maker = ShardMaker(arguments, "benchmark", Blocklist())
    maker.prepare()
    return maker.make


def plain_maker(_: str, threads: int) -> Make:
    """Return img2dataset's own downloader, as its main program makes it."""
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    downloader: Any = Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=Resizer(
            image_size=IMAGE_SIZE_PX,
            resize_mode="center_crop",
            min_image_size=64,
            max_aspect_ratio=3.0,
            resize_only_if_bigger=False,
        ),
        thread_count=threads,
        number_sample_per_shard=SAMPLES_PER_SHARD,
        extract_exif=False,
        retries=1,
        save_caption=True,
        output_folder=f"s3://{BUCKET}/same",
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


def results(sides: dict[str, Turns], options: argparse.Namespace) -> dict[str, Any]:
    seconds, cpu_seconds = (harness.ratio_of(sides, "same", "step", cpu) for cpu in (False, True))
    return {
        "ratios": {"same_concurrency": seconds, "cpu_same_concurrency": cpu_seconds},
        "sides": {name: harness.summary(turns, "image") for name, turns in sides.items()},
        "settings": {name: getattr(options, name) for name in ("turns", "processes", "threads")},
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
