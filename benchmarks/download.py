"""The Download step against plain img2dataset, to the same S3 server, in the same run.

    python -m benchmarks.download [--json] [--rounds 3] [--rows 2000] [--turns 6] [--processes 2] [--threads 32]

Serves pictures and an S3 API (moto) on loopback, each in a process of its own, and downloads the same url table in
turns with

    step      python -m steps download with everything that keeps it safe: guarded addresses, bounded bodies and pixels,
              shards read back and checksummed, duplicates by url and by bytes, X-Robots-Tag
    same      img2dataset with the same processes, threads, size, crop, quality, hash and shard size
    defaults  img2dataset as it comes, writing WebDataset to the same bucket: 1 process, 256 threads, letterboxed

Every run is a process from start to end, imports included. What a picture costs once a download flows is measured
separately, in turns of some shards (benchmarks/download_flow.py): a job has hours of that, and other load on the
machine affects both sides alike. Prints images/s and CPU-ms for each image, and the medians of the ratios within a
turn or round:

    same_concurrency      images/s of step / same, while both flow: at least 0.95 is what safety may cost
    cpu_same_concurrency  CPU-seconds of same / step, while both flow
    whole_runs            images/s of step / same from start to end: imports, screening and the manifest weigh much in
                          a run of this length, and nothing in one of hours
    img2dataset_defaults  images/s of step / defaults, from start to end
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import harness
from benchmarks.download_flow import IMAGE_SIZE_PX, measure_flow, plain_settings
from benchmarks.harness import ROOT, Turns
from params.arguments import to_flags

BUCKET = "benchmark"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "WANDB_MODE": "disabled",
}
SAMPLES_PER_SHARD = 500


def main(argv: list[str]) -> int:
    options = harness.parser(
        "benchmarks.download",
        __doc__,
        rounds=(3, "turns of all sides"),
        rows=(2000, "rows of the url table"),
        turns=(6, "turns of each side while it flows"),
        processes=(2, "download processes of step and same"),
        threads=(32, "connections of each"),
    ).parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        base = Path(folder)
        web, s3 = (stack.enter_context(serving(module)) for module in ("benchmarks.web", "moto.server"))
        os.environ |= {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3}
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        write_table(base / "urls", web, options.rows)
        flow = measure_flow(options, web, f"s3://{BUCKET}/flow", SAMPLES_PER_SHARD)
        sides = measure(options, base, web, client)
    harness.print_result(results(sides, flow, options), options.json)
    return 0


@contextmanager
def serving(module: str) -> Iterator[str]:
    """Run a server as a process of its own, which ends with the block; yields its address."""
    port = harness.free_port()
    flags = [str(port)] if module == "benchmarks.web" else ["-H", "127.0.0.1", "-p", str(port)]
    with harness.process([sys.executable, "-m", module, *flags], subprocess.DEVNULL, **ENVIRONMENT) as server:
        address = f"http://127.0.0.1:{port}"
        harness.wait_for_answer(address, server)
        yield address


def measure(options: argparse.Namespace, base: Path, web: str, client: Any) -> dict[str, Turns]:
    of_resizer, of_downloader = plain_settings(options.threads, SAMPLES_PER_SHARD)
    same = {"processes_count": options.processes, **of_resizer, **of_downloader}
    commands = {
        "step": lambda uri: step_command(options, base, web, uri),
        "same": lambda uri: plain_command(base, uri, same),
        "defaults": lambda uri: plain_command(base, uri, {}),
    }

    def whole_run(name: str, number: int) -> tuple[float, float]:
        """Return seconds, and CPU-seconds of the process and its children, for each picture."""
        prefix = f"{name}-{number}"
        (base / prefix).mkdir()
        command = commands[name](f"s3://{BUCKET}/{prefix}")
        started_s, started_cpu_s = time.perf_counter(), children_cpu_s()
        run(command, SAGEMAKER_BASE_DIR=str(base / prefix))
        elapsed_s, cpu_s = time.perf_counter() - started_s, children_cpu_s() - started_cpu_s
        kept = successes(client, prefix)
        if kept != options.rows:
            raise SystemExit(f"error: {name} kept {kept} of {options.rows} pictures")
        return elapsed_s / kept, cpu_s / kept

    return harness.take_turns({name: functools.partial(whole_run, name) for name in commands}, options.rounds)


def step_command(options: argparse.Namespace, base: Path, web: str, uri: str) -> list[str]:
    settings = {
        "url_table": str(base / "urls"),
        "shards_uri": uri,
        "allowed_hosts": [web.removeprefix("http://")],
        "image_size_px": IMAGE_SIZE_PX,
        "samples_per_shard": SAMPLES_PER_SHARD,
        "processes": options.processes,
        "threads": options.threads,
    }
    return [sys.executable, "-m", "steps", "download", *to_flags(settings)]


def plain_command(base: Path, uri: str, settings: dict[str, Any]) -> list[str]:
    """Return the command line as img2dataset's readme has it."""
    values = {
        "url_list": str(base / "urls"),
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": uri,
        "output_format": "webdataset",
        **settings,
    }
    program = str(Path(sys.executable).with_name("img2dataset"))
    return [sys.executable, "-W", "ignore", program, *(f"--{name}={value}" for name, value in values.items())]


def run(command: list[str], **environment: str) -> None:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)[:200]}: {done.stderr[-1000:]}")


def children_cpu_s() -> float:
    """Return the CPU-seconds of all processes that this one has started and waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def successes(client: Any, prefix: str) -> int:
    """Delete a run's objects and return how many pictures its statistics count."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    pictures = 0
    for key in keys:
        if key.endswith("_stats.json"):
            pictures += int(json.loads(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())["successes"])
        client.delete_object(Bucket=BUCKET, Key=key)
    return pictures


def write_table(folder: Path, web: str, rows: int) -> None:
    folder.mkdir()
    table = {"url": [f"{web}/{row}.jpg" for row in range(rows)], "caption": [f"picture {row}" for row in range(rows)]}
    pq.write_table(pa.table(table), folder / "0.parquet")


def results(sides: dict[str, Turns], flow: dict[str, Turns], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "ratios": {
            "same_concurrency": ratio(flow["same"], flow["step"], 0),
            "cpu_same_concurrency": ratio(flow["same"], flow["step"], 1),
            "whole_runs": ratio(sides["same"], sides["step"], 0),
            "img2dataset_defaults": ratio(sides["defaults"], sides["step"], 0),
        },
        "flow": {name: harness.summary(turns, "image") for name, turns in flow.items()},
        "sides": {name: harness.summary(turns, "image") for name, turns in sides.items()},
        "settings": {name: getattr(options, name) for name in ("rounds", "rows", "turns", "processes", "threads")},
        "cores": os.cpu_count(),
    }


def ratio(base: Turns, own: Turns, kind: int) -> float:
    """Return the median of base / own within a turn: of seconds, or, for a `kind` of 1, of CPU-seconds."""
    return harness.median_ratio([turn[kind] for turn in base], [turn[kind] for turn in own])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
