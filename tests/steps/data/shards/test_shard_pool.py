import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from params.programs import DownloadArguments
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.shard_pool import host_pool
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.tables.url_table import TableSlice
from steps.errors import StepError


class Maker(ShardMaker):
    """Makes no shards; does what the first url of a task says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(DownloadArguments(url_table="", shards_uri=str(folder)), Blocklist())
        self.folder = folder

    def prepare(self, on_row: Callable[[], None], names_file: Path) -> None:
        self.on_row = on_row
        (self.folder / f"pid-{os.getpid()}").touch()

    def make(self, task: TableSlice) -> VerifiedShard:
        self.on_row()
        marker = self.folder / f"tried-{task.index}"
        first_time = not marker.exists()
        marker.touch()
        action = task.urls[0]
        if action == "die" and first_time:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "stop" and first_time:
            os.kill(os.getpid(), signal.SIGSTOP)
        if action == "raise" or (action == "raise once" and first_time):
            raise OSError("no bucket")
        if action == "sleep":
            time.sleep(600)
        if action == "work":
            time.sleep(3)
        return VerifiedShard(name=f"{task.index}", rows=1, samples=1, bytes=1, sha256=str(os.getpid()), failed={})


def tasks(*actions: str) -> Iterator[TableSlice]:
    for index, action in enumerate(actions):
        yield TableSlice(index, index, [action], [""])


def processes_of(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def test_shards_are_made_in_other_processes_and_a_failure_costs_a_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: list[int] = []
    with host_pool(Maker(tmp_path), 2, counts.append) as pool:
        shards = dict(pool.run(tasks("ok", "raise once", "ok", "ok")))
    assert sorted(shards) == [0, 1, 2, 3]
    assert str(os.getpid()) not in {shard.sha256 for shard in shards.values()}
    assert "shard 00001 failed (1 of 3 tries): OSError: no bucket" in capsys.readouterr().out
    assert counts[-1] == 5
    assert not any(map(psutil.pid_exists, processes_of(tmp_path)))


def test_a_shard_that_keeps_failing_ends_the_step_and_is_named(tmp_path: Path) -> None:
    with host_pool(Maker(tmp_path), 1, lambda rows: None) as pool:
        words = r"shard 00001 could not be verified in 3 tries: OSError: no bucket; run the step again"
        with pytest.raises(StepError, match=words):
            list(pool.run(tasks("ok", "raise")))


def test_a_worker_that_dies_costs_a_try_of_its_shard_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with host_pool(Maker(tmp_path), 2, lambda rows: None) as pool:
        assert sorted(number for number, _ in pool.run(tasks("ok", "die", "ok"))) == [0, 1, 2]
    said = capsys.readouterr().out
    assert said.count("failed (1 of 3 tries)") == 1 and "shard 00001" in said and "a worker process died" in said


def test_a_stopped_worker_is_ended_after_twice_the_median_and_its_shard_made_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with host_pool(Maker(tmp_path), 2, lambda rows: None) as pool:
        assert len(list(pool.run(tasks("work", "work", "work", "stop", "work", "work")))) == 6
    said = capsys.readouterr().out
    assert "shard 00003 failed (0 of 3 tries): ended on this host, where it took" in said
    assert not any(map(psutil.pid_exists, processes_of(tmp_path)))


def test_leaving_early_ends_workers_in_the_middle_of_a_shard(tmp_path: Path) -> None:
    started_s = time.monotonic()
    with host_pool(Maker(tmp_path), 1, lambda rows: None) as pool:
        for _ in pool.run(tasks("ok", "sleep", "sleep")):
            break
    assert time.monotonic() - started_s < 60
    assert not any(map(psutil.pid_exists, processes_of(tmp_path)))
