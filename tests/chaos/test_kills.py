"""Every step, the engine and the command killed with SIGKILL at random moments; nothing is lost, and nothing changes.

CHAOS_KILLS says how often (50), CHAOS_SEED which moments. Prints who was killed during what.
"""

import json
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil
import pytest

from tests.chaos.conftest import KILLS, SEED, run_id, run_unbroken
from tests.chaos.outcome import BUCKET, Outcome
from tests.end_to_end.conftest import LocalPipeline, clean_environment
from tests.processes import outlive

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(4 * 3600)]

# A run is killed so often before it ends, on average; memoryless, so that some attempts live long and end long steps.
KILLS_PER_RUN = 4
BUCKETED_KILLS = 5
GONE_WITHIN_S = 60.0
STEPS = ("Download", "Encode", "Tune", "Train", "Evaluate")


@dataclass
class Killer:
    """Kills one run after the other until enough were killed."""

    pipeline: LocalPipeline
    random: random.Random
    mean_life_s: float
    left: int
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(who, during which step) and how often."""

    def run(self, dataset: str) -> str:
        """Run the pipeline on a data set of its own through all its kills; return the execution's id."""
        start = ("--set", f"DatasetName={dataset}", "--set", f"TrainingRun={dataset}")
        before, current = set(self._runs()), None
        while True:
            arguments = ("--resume", current) if current else start
            running = self._start(*arguments)
            status = self._disturb(running)
            current = next(iter(set(self._runs()) - before), None)
            if status == 0 and current is not None:
                return current

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.pipeline.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
        )

    def _disturb(self, running: subprocess.Popen[bytes]) -> int:
        """Kill something of a run again and again until the run ends; return the command's status."""
        while self.left:
            try:
                return running.wait(self.random.expovariate(1 / self.mean_life_s))
            except subprocess.TimeoutExpired:
                self._strike(running)
        return running.wait(3600)

    def _strike(self, running: subprocess.Popen[bytes]) -> None:
        family = psutil.Process(running.pid).children(recursive=True)
        planes = [process for process in family if "pipeline_definition.local" in _command(process)]
        jobs = [process for process in family if "steps" in _command(process)]
        who, victim = self.random.choice(
            [
                ("the command", psutil.Process(running.pid)),
                ("the engine", self.random.choice(planes) if planes else None),
                *[("a step's process", self.random.choice(jobs) if jobs else None)] * 2,
            ]
        )
        if victim is None or not victim.is_running():
            return
        self.struck[who, self._step()] += 1
        self.left -= 1
        victim.kill()
        if who == "the command":
            running.wait()
            alive = outlive(family, GONE_WITHIN_S)
            assert not alive, f"a killed run leaves nothing behind: {[_command(process) for process in alive]}"

    def _step(self) -> str:
        """Return the step that the newest run is in."""
        newest = max(self._runs(), key=lambda name: (self.pipeline.runs / name).stat().st_mtime)
        journal = self.pipeline.runs / newest / "journal.jsonl"
        lines = journal.read_text().splitlines() if journal.is_file() else []
        begun = [line for line in lines if '"status":"Executing"' in line and '"step":{"name":"' in line]
        return begun[-1].split('"step":{"name":"')[1].split('"')[0] if begun else "start"

    def _runs(self) -> list[str]:
        return [path.name for path in self.pipeline.runs.iterdir() if path.is_dir() and not path.is_symlink()]


def test_killed_again_and_again_it_ends_with_the_same_bytes(pipeline: LocalPipeline, unbroken: Outcome) -> None:
    struck = kill_runs(pipeline, unbroken, KILLS)
    if KILLS >= 50:
        assert {step for _, step in struck} >= set(STEPS)
    assert run_id(pipeline.runs / "latest")


def test_so_does_a_run_over_pictures_of_three_shapes(bucketed: LocalPipeline) -> None:
    unbroken = run_unbroken(bucketed)
    (manifest,) = (bucketed.state / "s3" / BUCKET / "latents").glob("*/*/manifest.json")
    buckets = json.loads(manifest.read_text())["buckets"]
    assert [bucket["size_px"] for bucket in buckets] == [[80, 48], [64, 64], [48, 80]]
    assert all(bucket["counts"]["train"] >= 32 for bucket in buckets)
    kill_runs(bucketed, unbroken, min(KILLS, BUCKETED_KILLS))


def kill_runs(pipeline: LocalPipeline, unbroken: Outcome, kills: int) -> Counter[tuple[str, str]]:
    """Kill one run after the other and compare what each leaves; return who was struck, and during what."""
    pipeline.down()
    killer = Killer(pipeline, random.Random(SEED), unbroken.seconds / KILLS_PER_RUN, kills)
    began_s, finished = time.monotonic(), 0
    while killer.left:
        finished += 1
        dataset = f"killed-{finished}"
        outcome = Outcome.of(pipeline, dataset, killer.run(dataset))
        print(f"run {finished} ended after {dict(killer.struck)}", flush=True)
        assert outcome == unbroken, f"run {finished}, after {dict(killer.struck)}"
        pipeline.down()
    minutes = (time.monotonic() - began_s) / 60
    print(f"\n{kills} kills in {finished} runs, {minutes:.0f} min; every run ended with the unbroken run's bytes")
    for (who, step), times in sorted(killer.struck.items()):
        print(f"  {who:18} during {step:10} {times}")
    return killer.struck


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
