"""The training loader against other loaders, in one interleaved run over the same samples from the page cache.

    python -m benchmarks.loader [--json] [--rounds 5] [--turn-s 0.5] [--size 1.0]
    python -m benchmarks.loader --scale [--json]

Writes the samples to a temporary folder in each loader's format and reads them in turns, in this process. Prints
samples per CPU-second (256 px moments with token ids; with cached caption embeddings too; and 256 x 128 px moments,
which are as many bytes as one 256 px latent without its standard deviation), and as ratios the medians over the rounds
of ours to plain WebDataset (.npy files for each sample) and to pread of the same bytes, which is the machine's ceiling.
mosaicml-streaming and litdata are measured where `make bench` has installed them.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.loader import loaders, scale
from benchmarks.loader.loaders import KINDS, Kind

RIVALS_DIR = harness.ROOT / ".bench"
OURS, PLAIN, PREAD = "ours", "plain webdataset", "pread"
# Batches taken before the clock starts: those read ahead while others were measured would cost nothing.
UNCOUNTED_BATCHES = 8
_IDLE_S = 0.02


# Samples per CPU-second, and bytes per sample that the process asked the file system for: 0 if the loader maps its
# files. One pair for each round.
Rates = list[tuple[float, float]]


def main(argv: list[str]) -> int:
    flags = harness.parser(
        "benchmarks.loader",
        __doc__,
        rounds=(5, "turns of all loaders"),
        turn_s=(0.5, "CPU-seconds of one turn"),
        size=(1.0, "fraction of the samples (1.0: 65,536, 4,096 and 131,072)"),
    )
    flags.add_argument("--scale", action="store_true", help="start-up over 100, 1,000 and 10,000 shards instead")
    options = flags.parse_args(argv)
    if options.scale:
        harness.print_result(scale.scale(), options.json)
        return 0
    warnings.simplefilter("ignore")  # other loaders leave files open
    kinds = [kind.scaled(options.size) for kind in KINDS]
    rates = {kind.name: compare(kind, options.rounds, options.turn_s) for kind in kinds}
    harness.print_result(summary(rates), options.json)
    return 0


def compare(kind: Kind, rounds: int, turn_cpu_s: float) -> dict[str, Rates]:
    """Return every loader's figures; the first turn of each is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            name: functools.partial(_turn, batches, turn_cpu_s)
            for name, batches in every_loader(Path(folder), kind).items()
        }
        return harness.take_turns(sides, rounds, uncounted=1)


def every_loader(folder: Path, kind: Kind) -> dict[str, Iterator[int]]:
    own, plain = loaders.write_ours(folder / "ours", kind), loaders.write_plain_webdataset(folder / "plain", kind)
    batches = {
        PREAD: loaders.pread(own, kind),
        "pread, one buffer": loaders.pread(own, kind, batches=1),
        OURS: loaders.ours(own, kind),
        "stock webdataset, our shards": loaders.stock_webdataset(own, kind),
        PLAIN: loaders.plain_webdataset(plain, kind),
    }
    for name, (module, write, read) in rivals().items():
        if importable(module):
            batches[name] = read(write(folder / module, kind), kind)
    return batches


def rivals() -> dict[str, tuple[str, Callable[[Path, Kind], Path], Callable[[Path, Kind], Iterator[int]]]]:
    return {
        "litdata": ("litdata", loaders.write_litdata, loaders.litdata),
        "mosaicml-streaming": ("streaming", loaders.write_mosaicml, loaders.mosaicml),
    }


def importable(module: str) -> bool:
    """Whether a rival is installed; it comes last on the path, so that it changes none of our own libraries."""
    if str(RIVALS_DIR) not in sys.path:
        sys.path.append(str(RIVALS_DIR))
        # mosaicml-streaming imports torchvision for its picture data sets, which have no part in this.
        sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))
    return importlib.util.find_spec(module) is not None


def _turn(batches: Iterator[int], turn_cpu_s: float, _: int) -> tuple[float, float]:
    for _ in range(UNCOUNTED_BATCHES):
        next(batches)
    samples, read_before = 0, _read_bytes()
    start_s = time.process_time()
    while (cpu_s := time.process_time() - start_s) < turn_cpu_s:
        samples += next(batches)
    read_bytes = _read_bytes() - read_before
    _wait_until_idle()
    return samples / cpu_s, read_bytes / samples


def _read_bytes() -> int:
    """Return how many bytes this process has read through system calls; 0 if the system does not say."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split()[1])


def _wait_until_idle() -> None:
    """Let threads that read ahead finish, so that the next loader does not pay for them."""
    before = time.process_time()
    while True:
        time.sleep(_IDLE_S)
        now = time.process_time()
        if now - before < _IDLE_S / 10:
            return
        before = now


def summary(results: dict[str, dict[str, Rates]]) -> dict[str, Any]:
    ratios = {}
    for kind, rates in results.items():
        own, plain, pread = ([rate for rate, _ in rates[name]] for name in (OURS, PLAIN, PREAD))
        ratios[f"{kind}_vs_plain_webdataset"] = harness.median_ratio(own, plain)
        ratios[f"{kind}_vs_pread"] = harness.median_ratio(own, pread)
    return {
        "ratios": ratios,
        "samples_per_cpu_s": {kind: _medians(rates, 0) for kind, rates in results.items()},
        "read_bytes_per_sample": {kind: _medians(rates, 1) for kind, rates in results.items()},
        "sample_bytes": {kind.name: kind.sample_bytes for kind in KINDS},
        "not_installed": [name for name, (module, *_) in rivals().items() if not importable(module)],
    }


def _medians(rates: dict[str, Rates], position: int) -> dict[str, float]:
    return {name: statistics.median(pair[position] for pair in pairs) for name, pairs in rates.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
