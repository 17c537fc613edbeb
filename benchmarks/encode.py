"""The Encode step against a bare loop over its encoder, on the same pictures, in the same run.

    python -m benchmarks.encode [--json] [--rounds 3] [--samples 768] [--resolution-px 128] [--pretrained DIR]

Draws pictures, makes shards of them with the Download step, and encodes them in turns: `bare`, one process that decodes
with Pillow, runs VAE and tokenizer, and keeps nothing; and `step`, steps.encode on a Ray cluster of this machine with
one encoder. Both have one torch thread (and the GPU, where there is one). The step is measured from its first block to
its last; its start is printed by itself. Prints pictures/s and CPU-ms for each picture, and the ratios of
docs/benchmarks.md, medians over the rounds.
"""

import argparse
import functools
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks import harness
from benchmarks.harness import SMALL_MODEL
from benchmarks.train.models import write_pictures
from params.programs import DownloadArguments, EncodeArguments
from steps import encode
from steps.container import Cluster
from steps.data.encoding.encoder import BlockEncoder
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.encoding.ray_encoding import encode_shards
from steps.data.encoding.samples import read_samples, read_table
from steps.data.storage import Storage
from steps.download import download
from steps.ray_cluster import leading

SAMPLES_PER_SHARD = 256
ROWS_PER_BLOCK = 32
BATCH_SIZE = 16
# Seconds and CPU-seconds of a picture, one pair for each turn.
Turns = list[tuple[float, float]]

THIS_HOST = Cluster(("localhost",), "localhost", "localhost", 1, 2)


def main(argv: list[str]) -> int:
    options = harness.parser(
        "benchmarks.encode",
        __doc__,
        rounds=(3, "turns of both sides"),
        samples=(768, "pictures"),
        resolution_px=(128, "side of the pictures"),
        pretrained=(SMALL_MODEL, "folder of the models"),
    ).parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_shards(base, options.samples, options.resolution_px)
        result = measure(options, base)
    harness.print_result(result, options.json)
    return 0


def make_shards(base: Path, samples: int, size_px: int) -> None:
    arguments = DownloadArguments(
        url_table=str(write_pictures(base / "pictures", size_px, samples)),
        source="pictures",
        shards_uri=str(base / "shards"),
        image_size_px=size_px,
        samples_per_shard=SAMPLES_PER_SHARD,
        processes=1,
    )
    manifest = download(arguments, THIS_HOST, "benchmark")
    (base / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")


def measure(options: argparse.Namespace, base: Path) -> dict[str, Any]:
    starts_s = list[float]()
    sides = {"bare": bare_loop(options, base), "step": functools.partial(run_step, options, base, starts_s)}
    with leading(THIS_HOST, "benchmark", 600):
        # Uncounted, so that the loop does not pay for what is slow only the first time.
        sides["bare"](0)
        turns = harness.take_turns(sides, options.rounds)
    return results(options, turns, starts_s)


def bare_loop(options: argparse.Namespace, base: Path) -> Callable[[int], tuple[float, float]]:
    """Return a function that encodes all pictures as a script would: seconds and CPU-seconds for each."""
    text_encoder = json.loads((options.pretrained / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    encoder = BlockEncoder(
        EncoderSettings(
            pretrained=options.pretrained,
            batch_size=BATCH_SIZE,
            caption_length=int(text_encoder["max_position_embeddings"]),
            caption_embeddings=False,
            precision="float32",
        )
    )
    storage = Storage(str(base / "shards"))
    samples = []
    for name in sorted(name for name in storage.sizes() if name.endswith(".tar")):
        table = read_table(storage, name)
        samples += read_samples(storage, table, np.arange(len(table.keys)))

    def encode_all(_: int) -> tuple[float, float]:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        for first in range(0, len(samples), BATCH_SIZE):
            batch = samples[first : first + BATCH_SIZE]
            opened = [Image.open(io.BytesIO(sample.picture)).convert("RGB") for sample in batch]
            encoder.encode(np.stack([np.asarray(one) for one in opened]), [sample.caption for sample in batch])
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        return elapsed_s / len(samples), cpu_s / len(samples)

    return encode_all


def run_step(options: argparse.Namespace, base: Path, starts_s: list[float], number: int) -> tuple[float, float]:
    """Encode all pictures with the step; return seconds and CPU-seconds for each while it flows."""
    arguments = EncodeArguments(
        resolution_px=options.resolution_px,
        batch_size=BATCH_SIZE,
        rows_per_block=ROWS_PER_BLOCK,
        rows_per_shard=SAMPLES_PER_SHARD,
        heldout_fraction=0.0,
        workers=1,
        shards_uri=str(base / "shards"),
        latents_uri=str(base / f"latents-{number}"),
        reference_uri=str(base / f"reference-{number}"),
    )
    marks, started_s = [], time.perf_counter()

    def mark(rows: int) -> None:
        marks.append((time.perf_counter(), tree_cpu_s(), rows))

    with mock.patch.object(encode, "encode_shards", lambda job, shards, _: encode_shards(job, shards, mark)):
        encode.Encode(arguments, base / "manifest.json", options.pretrained).run()
    starts_s.append(marks[0][0] - started_s)
    rows = sum(count for _, _, count in marks[1:])
    return (marks[-1][0] - marks[0][0]) / rows, (marks[-1][1] - marks[0][1]) / rows


def tree_cpu_s() -> float:
    total, root = 0.0, psutil.Process()
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += harness.cpu_s(process)
    return total


def results(options: argparse.Namespace, turns: dict[str, Turns], starts_s: list[float]) -> dict[str, Any]:
    seconds, cpu_s = ({name: [turn[i] for turn in its] for name, its in turns.items()} for i in (0, 1))
    return {
        "ratios": {
            "overhead": harness.median_ratio(seconds["step"], seconds["bare"]) - 1,
            "overhead_cpu": harness.median_ratio(cpu_s["step"], cpu_s["bare"]) - 1,
        },
        "sides": {
            name: {
                "pictures_per_s": 1 / statistics.median(seconds[name]),
                "cpu_ms_per_picture": 1000 * statistics.median(cpu_s[name]),
            }
            for name in turns
        },
        "start_s": statistics.median(starts_s),
        "settings": {name: getattr(options, name) for name in ("rounds", "samples", "resolution_px")},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
