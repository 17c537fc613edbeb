"""The training loader against plain WebDataset, in one interleaved run over the same samples from the page cache.

    python -m benchmarks.loader [--json] [--rounds 5] [--turn-s 0.5] [--size 1.0]
    python -m benchmarks.loader --scale [--json]

Writes the samples to a temporary folder in each loader's format and reads them in turns, in this process. Prints
samples per CPU-second (256 px moments with token ids, and with cached caption embeddings too), and as ratios the
medians over the rounds of ours to plain WebDataset (.npy files for each sample) and to pread of the same bytes, which
is the machine's ceiling.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.loader import loaders, scale
from benchmarks.loader.loaders import KINDS, Kind

OURS, PLAIN, PREAD = "ours", "plain webdataset", "pread"
# Batches taken before the clock starts: those read ahead while others were measured would cost nothing.
UNCOUNTED_BATCHES = 8
_IDLE_S = 0.02


def main(argv: list[str]) -> int:
    flags = harness.parser(
        "benchmarks.loader",
        __doc__,
        rounds=(5, "turns of all loaders"),
        turn_s=(0.5, "CPU-seconds of one turn"),
        size=(1.0, "fraction of the samples (1.0: 65,536 and 4,096)"),
    )
    flags.add_argument("--scale", action="store_true", help="start-up over 100, 1,000 and 10,000 shards instead")
    options = flags.parse_args(argv)
    if options.scale:
        harness.print_result(scale.scale(), options.json)
        return 0
    warnings.simplefilter("ignore")  # webdataset leaves files open
    kinds = [kind.scaled(options.size) for kind in KINDS]
    rates = {kind.name: compare(kind, options.rounds, options.turn_s) for kind in kinds}
    harness.print_result(summary(rates), options.json)
    return 0


def compare(kind: Kind, rounds: int, turn_cpu_s: float) -> dict[str, list[float]]:
    """Return every loader's samples per CPU-second; the first turn of each is not counted."""
    with tempfile.TemporaryDirectory() as name:
        own = loaders.write_ours(Path(name) / "ours", kind)
        plain = loaders.write_plain_webdataset(Path(name) / "plain", kind)
        batches = {
            PREAD: loaders.pread(own, kind),
            OURS: loaders.ours(own, kind),
            PLAIN: loaders.plain_webdataset(plain, kind),
        }
        sides = {name: functools.partial(_turn, its, turn_cpu_s) for name, its in batches.items()}
        return harness.take_turns(sides, rounds, uncounted=1)


def _turn(batches: Iterator[int], turn_cpu_s: float, _: int) -> float:
    for _ in range(UNCOUNTED_BATCHES):
        next(batches)
    samples, start_s = 0, time.process_time()
    while (cpu_s := time.process_time() - start_s) < turn_cpu_s:
        samples += next(batches)
    _wait_until_idle()
    return samples / cpu_s


def _wait_until_idle() -> None:
    """Let threads that read ahead finish, so that the next loader does not pay for them."""
    before = time.process_time()
    while True:
        time.sleep(_IDLE_S)
        now = time.process_time()
        if now - before < _IDLE_S / 10:
            return
        before = now


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
