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

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.loader import folders, methods, scale
from benchmarks.loader.samples import KINDS, Kind, kind

ROOT = Path(__file__).resolve().parents[2]
RIVALS_DIR = ROOT / ".bench"
OURS, PLAIN, PREAD = "ours", "plain webdataset", "pread"
# Batches taken before the clock starts: what was read ahead while others were measured costs nothing.
UNCOUNTED_BATCHES = 8
_IDLE_S = 0.02


@dataclass
class LoaderFigures:
    """What one loader has shown so far: one figure for each round."""

    samples_per_cpu_s: list[float] = field(default_factory=list)
    read_bytes_per_sample: list[float] = field(default_factory=list)
    """What the process asked the file system for; 0 where the loader maps its files."""


def main(argv: list[str]) -> int:
    options = parse(argv)
    if options.scale:
        scale.report(scale.scale(), options.json)
        return 0
    warnings.simplefilter("ignore")  # other loaders leave files open
    results = {name: compare(kind(name, options.size), options.rounds, options.turn_s) for name in KINDS}
    report(summary(results), options.json)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--scale", action="store_true", help="start-up over 100, 1,000 and 10,000 shards instead")
    parser.add_argument("--rounds", type=int, default=5, help="turns of all loaders")
    parser.add_argument("--turn-s", type=float, default=0.5, help="CPU-seconds of one turn")
    parser.add_argument(
        "--size", type=float, default=1.0, help="fraction of the samples (1.0: 65,536, 4,096 and 131,072)"
    )
    return parser.parse_args(argv)


def compare(of: Kind, rounds: int, turn_cpu_s: float) -> dict[str, LoaderFigures]:
    with tempfile.TemporaryDirectory() as name:
        return measure(loaders(Path(name), of), rounds, turn_cpu_s)


def loaders(folder: Path, of: Kind) -> dict[str, Iterator[int]]:
    """Write every format and return the loaders over them."""
    own, plain = folders.write_ours(folder / "ours", of), folders.write_plain_webdataset(folder / "plain", of)
    found = {
        PREAD: methods.pread(own, of),
        "pread, one buffer": methods.pread_one_buffer(own, of),
        OURS: methods.ours(own, of),
        "stock webdataset, our shards": methods.stock_webdataset(own, of),
        PLAIN: methods.plain_webdataset(plain, of),
    }
    for name, (module, write, read) in rivals().items():
        if importable(module):
            found[name] = read(write(folder / module, of), of)
    return found


def rivals() -> dict[str, tuple[str, Callable[[Path, Kind], Path], Callable[[Path, Kind], Iterator[int]]]]:
    return {
        "litdata": ("litdata", folders.write_litdata, methods.litdata),
        "mosaicml-streaming": ("streaming", folders.write_mosaicml, methods.mosaicml),
    }


def importable(module: str) -> bool:
    """Whether a rival is there; it comes last on the path, so that it changes none of our own libraries."""
    if str(RIVALS_DIR) not in sys.path:
        sys.path.append(str(RIVALS_DIR))
        # mosaicml-streaming imports torchvision for its picture data sets, which have no part in this.
        sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))
    return importlib.util.find_spec(module) is not None


def measure(loaders: Mapping[str, Iterator[int]], rounds: int, turn_cpu_s: float) -> dict[str, LoaderFigures]:
    """Return every loader's figures; the first turn of each is not counted."""
    figures = {name: LoaderFigures() for name in loaders}
    for number in range(rounds + 1):
        for name, batches in loaders.items():
            rate, read_bytes = _turn(batches, turn_cpu_s)
            if number:
                figures[name].samples_per_cpu_s.append(rate)
                figures[name].read_bytes_per_sample.append(read_bytes)
    return figures


def _turn(batches: Iterator[int], turn_cpu_s: float) -> tuple[float, float]:
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
    """Return how many bytes this process has read through system calls; 0 where the system does not tell."""
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


def summary(results: dict[str, dict[str, LoaderFigures]]) -> dict[str, Any]:
    ratios = {}
    for of, figures in results.items():
        for name, base in (("plain_webdataset", PLAIN), ("pread", PREAD)):
            pairs = zip(figures[OURS].samples_per_cpu_s, figures[base].samples_per_cpu_s, strict=True)
            ratios[f"{of}_vs_{name}"] = statistics.median(own / other for own, other in pairs)
    return {
        "ratios": ratios,
        "samples_per_cpu_s": {of: _medians(figures, "samples_per_cpu_s") for of, figures in results.items()},
        "read_bytes_per_sample": {of: _medians(figures, "read_bytes_per_sample") for of, figures in results.items()},
        "sample_bytes": {of: kind(of).sample_bytes for of in results},
        "not_installed": [name for name, (module, *_) in rivals().items() if not importable(module)],
    }


def _medians(figures: dict[str, LoaderFigures], attribute: str) -> dict[str, float]:
    return {name: statistics.median(getattr(own, attribute)) for name, own in figures.items()}


def report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for of, rates in result["samples_per_cpu_s"].items():
        size = result["sample_bytes"][of]
        print(f"{of} ({size / 1000:.1f} kB a sample)")
        for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
            read = result["read_bytes_per_sample"][of][name] / size
            print(f"  {name:30}{rate:12,.0f} samples/CPU-s {rate * size / 1e9:7.2f} GB/s   reads x{read:.2f}")
    for name, ratio in result["ratios"].items():
        print(f"{name:32}{ratio:8.2f}")
    for name in result["not_installed"]:
        print(f"{name} is not installed: `make bench` installs it")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
