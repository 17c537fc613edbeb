"""An hour of training over a tiny model: memory, file handles, threads and the work of a step stay flat.

LONG_HAUL_MINUTES says how long (60). Checkpoints and validations are frequent, so that an hour has as many as weeks.
"""

import json
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.chaos.conftest import LONG_HAUL_MINUTES
from tests.steps.training.jobs import ROOT, Job
from tests.steps.training.tiny_model import write_latents, write_pretrained

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(LONG_HAUL_MINUTES * 60 + 600)]

SETTINGS: dict[str, object] = {
    "training_samples": 80_000_000,
    "validate_every_samples": 2_000,
    "save_every_samples": 1_000,
    "log_every_steps": 25,
}
PERIOD_S = 1.0
# The allocator and the caches fill up in the beginning.
WARM_UP_FRACTION = 0.25
MOST_GROWTH = 1.05
# CPU time of a step, which other work on the machine moves less than wall time, but moves.
MOST_SLOWDOWN = 1.25


@dataclass(frozen=True)
class Sample:
    """The process at one moment."""

    rss_bytes: int
    handles: int
    threads: int
    cpu_s: float
    seen_samples: int


def test_nothing_grows(tmp_path: Path) -> None:
    pretrained = write_pretrained(tmp_path / "pretrained")
    job = Job(tmp_path / "job", dict(SETTINGS)).write(pretrained, write_latents(tmp_path / "latents", pretrained))
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "steps", "train"]
        process = subprocess.Popen(command, env=job.environment(), stdout=log, stderr=log, cwd=ROOT)
    try:
        samples = watched(process, tmp_path / "log", LONG_HAUL_MINUTES * 60)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert status == 128 + signal.SIGTERM, (tmp_path / "log").read_text()[-3000:]
    kept = samples[int(WARM_UP_FRACTION * len(samples)) :]
    first, last = kept[: len(kept) // 3], kept[-(len(kept) // 3) :]
    memory = [statistics.median(one.rss_bytes for one in part) for part in (first, last)]
    work_ms = [1000 * 8 * cpu_s_per_sample(part) for part in (first, last)]
    handles = [max(one.handles for one in part) for part in (first, last)]
    threads = [max(one.threads for one in part) for part in (first, last)]
    print(
        f"\n{LONG_HAUL_MINUTES:g} min, {samples[-1].seen_samples // 8:,} steps, {samples[-1].seen_samples // 1000:,}"
        f" checkpoints: memory {memory[0] / 2**20:.0f} to {memory[1] / 2**20:.0f} MiB (x {memory[1] / memory[0]:.3f}),"
        f" handles {handles[0]} to {handles[1]}, threads {threads[0]} to {threads[1]},"
        f" CPU of a step {work_ms[0]:.2f} to {work_ms[1]:.2f} ms (x {work_ms[1] / work_ms[0]:.3f})"
    )
    assert memory[1] <= MOST_GROWTH * memory[0]
    assert handles[1] <= handles[0]
    assert threads[1] <= threads[0]
    assert work_ms[1] <= MOST_SLOWDOWN * work_ms[0]
    assert len(job.checkpoints) <= 2


def watched(process: subprocess.Popen[bytes], log: Path, duration_s: float) -> list[Sample]:
    """Return a sample of the process for each second, from its first step on."""
    inside, samples, deadline_s = psutil.Process(process.pid), [], time.monotonic() + duration_s
    while time.monotonic() < deadline_s:
        assert process.poll() is None, log.read_text()[-3000:]
        seen = seen_samples(log)
        if seen:
            with inside.oneshot():
                times = inside.cpu_times()
                cpu_s = times.user + times.system
                memory = inside.memory_info().rss
                samples.append(Sample(memory, inside.num_fds(), inside.num_threads(), cpu_s, seen))
        time.sleep(PERIOD_S)
    return samples


def seen_samples(log: Path) -> int:
    """Return how far the newest progress line is."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = file.read().decode(errors="replace").splitlines()
    found = [line.removeprefix("PROGRESS ") for line in lines if line.startswith("PROGRESS {") and line.endswith("}")]
    return int(json.loads(found[-1])["done"]) if found else 0


def cpu_s_per_sample(samples: list[Sample]) -> float:
    return (samples[-1].cpu_s - samples[0].cpu_s) / (samples[-1].seen_samples - samples[0].seen_samples)
