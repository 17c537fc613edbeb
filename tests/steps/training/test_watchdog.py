"""The watchdog names the rank that the others waited for."""

import os
import threading
import time

import pytest
import torch

from steps.training import watchdog as watchdog_module
from steps.training.ranks import LostRankError, World
from steps.training.watchdog import Report, Watchdog, explain

WORLD = World(rank=0, size=3, local_rank=0, device=torch.device("cpu"))


def report(rank: int, beats: int = 10, number: int = 100, phase: str = "step") -> Report:
    return Report(rank=rank, host=f"algo-{rank + 1}", beats=beats, phase=phase, seen_samples=640, number=number)


BEFORE = [report(0), report(1), report(2)]


def test_a_silent_rank_is_named() -> None:
    after = [report(0, number=108), report(1, number=100), report(2, number=108)]
    assert explain(WORLD, 60, BEFORE, after) == (
        "no progress for 60 s (see collective_timeout_s): no sign of life from rank 1 on algo-2 "
        "(in 'step' after 640 samples)"
    )


def test_a_rank_that_never_came_is_named() -> None:
    after = [report(0, number=108), report(1, number=108)]
    assert "no sign of life from rank 2 (never seen)" in explain(WORLD, 60, BEFORE[:2], after)


def test_a_rank_that_is_behind_is_named() -> None:
    after = [report(0, number=108), report(1, number=108), report(2, beats=9, number=108, phase="data")]
    assert "the others wait for rank 2 on algo-3 (in 'data' after 640 samples)" in explain(WORLD, 60, BEFORE, after)


def test_when_all_wait_it_is_the_network() -> None:
    after = [report(rank, number=108) for rank in range(3)]
    assert "every rank waits in the same place" in explain(WORLD, 60, BEFORE, after)


def test_a_rank_ends_with_its_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[object] = []
    seen = threading.Event()
    alone = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))

    def end(reason: object) -> None:
        ended.append(reason)
        seen.set()

    watchdog = Watchdog(alone, 60, end, {"TORCHELASTIC_RUN_ID": "job"})
    assert not ended
    parent = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: parent + 1)
    assert seen.wait(5)
    watchdog.stop()
    assert ended[0] == "torchrun is gone"


def test_without_torchrun_the_parent_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[object] = []
    alone = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    watchdog = Watchdog(alone, 60, ended.append, {})
    parent = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: parent + 1)
    time.sleep(0.8)
    watchdog.stop()
    assert not ended


class BrokenStore:
    def set(self, key: str, value: str) -> None:
        raise RuntimeError("Broken pipe")


def test_a_rank_ends_some_seconds_after_its_first_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once: at the end of a job the first host may leave first."""
    ended: list[object] = []
    monkeypatch.setattr(watchdog_module, "SILENCE_S", 0.2)
    monkeypatch.setattr(watchdog_module, "PERIOD_S", 0.05)
    monkeypatch.setattr(watchdog_module, "_store", lambda environment, world: BrokenStore())
    watchdog = Watchdog(WORLD, 60, ended.append, {})
    time.sleep(0.1)
    assert not ended
    deadline_s = time.monotonic() + 10
    while not ended and time.monotonic() < deadline_s:
        time.sleep(0.02)
    watchdog.stop()
    assert isinstance(ended[0], LostRankError)
    assert str(ended[0]) == "the first host is gone: Broken pipe"
