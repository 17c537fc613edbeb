"""The Download step against plain img2dataset, to the same S3 server, in the same run.

    python -m benchmarks.download [--json] [--rounds 3] [--rows 2000] [--turns 6] [--processes 2] [--threads 32]

Serves pictures and an S3 API (moto) on loopback, each in a process of its own, and downloads the same url table in
turns with

    step      python -m steps download with everything that keeps it safe: guarded addresses, bounded bodies and pixels,
              shards read back and checksummed, duplicates by url and by bytes, X-Robots-Tag
    same      img2dataset with the same processes, threads, size, crop, quality, hash and shard size
    defaults  img2dataset as it comes, writing WebDataset to the same bucket: 1 process, 256 threads, letterboxed

Every run is a process from start to end, imports included. What a picture costs once a download flows is measured
apart, some shards of one side after some of the other (benchmarks.download_flow): a job has hours of that, and what
else the machine does meets both sides alike. Prints images/s and CPU-ms for each image, and the medians of the ratios
that pair two turns, or the runs of one round:

    same_concurrency      images/s of step / same, while both flow: at least 0.95 is what safety may cost
    cpu_same_concurrency  CPU-seconds of same / step, while both flow
    whole_runs            images/s of step / same from start to end: imports, screening and the manifest weigh much in
                          a run of this length, and nothing in one of hours
    img2dataset_defaults  images/s of step / defaults, from start to end
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.download_flow import IMAGE_SIZE_PX, plain_settings
from benchmarks.servers import ENVIRONMENT, serving

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "benchmark"
SIDES = ("step", "same", "defaults")
SAMPLES_PER_SHARD = 500

# Seconds and CPU-seconds of a picture, one pair for each turn or round.
Turns = list[tuple[float, float]]


def main(argv: list[str]) -> int:
    options = parse(argv)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        base = Path(folder)
        web = stack.enter_context(serving("pictures"))
        s3 = stack.enter_context(serving("s3"))
        environment = {**os.environ, **ENVIRONMENT, "AWS_ENDPOINT_URL": s3}
        client = boto3.client(
            "s3",
            endpoint_url=s3,
            region_name="us-east-1",
            aws_access_key_id="benchmark",
            aws_secret_access_key="benchmark",
        )
        client.create_bucket(Bucket=BUCKET)
        write_table(base / "urls", web, options.rows)
        flow = measure_flow(options, web, environment)
        sides = measure(options, base, web, environment, client)
    report(results(sides, flow, options), options.json)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--rounds", type=int, default=3, help="turns of all sides")
    parser.add_argument("--rows", type=int, default=2000, help="rows of the url table")
    parser.add_argument("--turns", type=int, default=6, help="turns of each side while it flows")
    parser.add_argument("--processes", type=int, default=2, help="download processes of step and same")
    parser.add_argument("--threads", type=int, default=32, help="connections of each")
    return parser.parse_args(argv)


def measure_flow(options: argparse.Namespace, web: str, environment: dict[str, str]) -> dict[str, Turns]:
    """Return what benchmarks.download_flow finds, in a process of its own."""
    flags = [f"--{name}={getattr(options, name)}" for name in ("turns", "processes", "threads")]
    flags.append(f"--rows={SAMPLES_PER_SHARD}")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.download_flow", web, f"s3://{BUCKET}/flow", *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: benchmarks.download_flow: {done.stderr[-1000:]}")
    flow: dict[str, Turns] = json.loads(done.stdout.splitlines()[-1])
    return flow


def measure(
    options: argparse.Namespace, base: Path, web: str, environment: dict[str, str], client: Any
) -> dict[str, Turns]:
    of_resizer, of_downloader = plain_settings(options, SAMPLES_PER_SHARD)
    same = {"processes_count": options.processes, **of_resizer, **of_downloader}
    commands = {
        "step": lambda uri: step_command(options, base, web, uri),
        "same": lambda uri: plain_command(base, uri, same),
        "defaults": lambda uri: plain_command(base, uri, {}),
    }
    sides: dict[str, Turns] = {name: [] for name in SIDES}
    for number in range(options.rounds):
        # Another one begins each round, so that none always runs on what the one before it left.
        for name in (*SIDES[number % 3 :], *SIDES[: number % 3]):
            prefix = f"{name}-{number}"
            output = base / prefix
            output.mkdir()
            elapsed_s, cpu_s = run(
                commands[name](f"s3://{BUCKET}/{prefix}"), {**environment, "SAGEMAKER_BASE_DIR": str(output)}
            )
            kept = successes(client, prefix)
            if kept != options.rows:
                raise SystemExit(f"error: {name} kept {kept} of {options.rows} pictures")
            sides[name].append((elapsed_s / kept, cpu_s / kept))
    return sides


def step_command(options: argparse.Namespace, base: Path, web: str, uri: str) -> list[str]:
    settings = {
        "url-table": base / "urls",
        "shards-uri": uri,
        "allowed-hosts": web.removeprefix("http://"),
        "image-size-px": IMAGE_SIZE_PX,
        "samples-per-shard": SAMPLES_PER_SHARD,
        "processes": options.processes,
        "threads": options.threads,
    }
    return [sys.executable, "-m", "steps", "download", *(f"--{name}={value}" for name, value in settings.items())]


def plain_command(base: Path, uri: str, settings: dict[str, Any]) -> list[str]:
    """Return a script as img2dataset's readme has it."""
    values = {
        "url_list": str(base / "urls"),
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": uri,
        "output_format": "webdataset",
        **settings,
    }
    code = f"import img2dataset\nif __name__ == '__main__':\n    img2dataset.download(**{values!r})\n"
    script = base / f"{uri.rsplit('/', 1)[-1]}.py"
    script.write_text(code, encoding="utf-8")
    return [sys.executable, "-W", "ignore", str(script)]


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds that a process took, and the CPU-seconds of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    elapsed_s = time.perf_counter() - started_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)[:200]}: {done.stderr[-1000:]}")
    return elapsed_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def successes(client: Any, prefix: str) -> int:
    """Return how many pictures the statistics in a prefix count."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    found = 0
    for key in keys:
        if key.endswith("_stats.json"):
            found += int(json.loads(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())["successes"])
        client.delete_object(Bucket=BUCKET, Key=key)
    return found


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
        "flow": {name: summary(turns) for name, turns in flow.items()},
        "sides": {name: summary(turns) for name, turns in sides.items()},
        "settings": {name: getattr(options, name) for name in ("rounds", "rows", "turns", "processes", "threads")},
        "cores": os.cpu_count(),
    }


def ratio(base: Turns, own: Turns, kind: int) -> float:
    """Return the median of base / own within a turn: of seconds, or, for a `kind` of 1, of CPU-seconds."""
    return statistics.median(its[kind] / mine[kind] for its, mine in zip(base, own, strict=True))


def summary(turns: Turns) -> dict[str, float]:
    return {
        "images_per_s": statistics.median(1 / seconds for seconds, _ in turns),
        "cpu_ms_per_image": 1000 * statistics.median(cpu_s for _, cpu_s in turns),
    }


def report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(f"{'':10}{'images/s':>10}{'CPU-ms/image':>14}")
    for title, kind in (("while it flows", "flow"), ("start to end", "sides")):
        print(title)
        for name, side in result[kind].items():
            print(f"{name:10}{side['images_per_s']:10.1f}{side['cpu_ms_per_image']:14.2f}")
    for name, value in result["ratios"].items():
        print(f"{name:22}{value:6.2f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
