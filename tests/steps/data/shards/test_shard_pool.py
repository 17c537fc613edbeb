import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from params.programs import DownloadArguments
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.shard_pool import HostPool
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.tables.url_table import TableSlice


class Maker(ShardMaker):
    """Makes no shards; does what the first url of a task says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(DownloadArguments(url_table="", shards_uri=str(folder)), "", Blocklist())
        self.folder = folder

    def prepare(self, on_row: Callable[[], None] | None = None) -> None:
        self.on_row = on_row or (lambda: None)
        (self.folder / f"pid-{os.getpid()}").touch()

    def make(self, task: TableSlice) -> VerifiedShard:
        self.on_row()
        marker = self.folder / f"tried-{task.index}"
        first_time = not marker.exists()
        marker.touch()
        action = task.urls[0]
        if action == "die" and first_time:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "raise":
            raise OSError("no bucket")
        if action == "sleep":
            time.sleep(600)
        return VerifiedShard(name=f"{task.index}", rows=1, samples=1, bytes=1, sha256=str(os.getpid()), failed={})


def tasks(*actions: str) -> Iterator[TableSlice]:
    for index, action in enumerate(actions):
        yield TableSlice(index, index, [action], [""])


def processes_of(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_shards_are_made_in_other_processes_and_failures_are_told(tmp_path: Path) -> None:
    counts: list[int] = []
    with HostPool(Maker(tmp_path), 2, counts.append) as pool:
        outcomes = {task.index: outcome for task, outcome in pool.run(tasks("ok", "raise", "ok", "ok"))}
    assert outcomes[1] == "OSError: no bucket"
    made = [outcome for outcome in outcomes.values() if isinstance(outcome, VerifiedShard)]
    assert len(made) == 3 and str(os.getpid()) not in {shard.sha256 for shard in made}
    assert counts[-1] == 4
    assert not any(map(is_alive, processes_of(tmp_path)))


def test_a_worker_that_dies_costs_a_try_of_its_shard(tmp_path: Path) -> None:
    with HostPool(Maker(tmp_path), 1, lambda rows: None) as pool:
        outcomes = list(pool.run(tasks("ok", "die", "ok")))
        failed = [task for task, outcome in outcomes if outcome == "a worker process died"]
        assert 1 in [task.index for task in failed]
        again = list(pool.run(iter(failed)))
    assert all(isinstance(outcome, VerifiedShard) for _, outcome in again)


def test_leaving_early_ends_workers_in_the_middle_of_a_shard(tmp_path: Path) -> None:
    started_s = time.monotonic()
    with HostPool(Maker(tmp_path), 1, lambda rows: None) as pool:
        for _ in pool.run(tasks("ok", "sleep", "sleep")):
            break
    assert time.monotonic() - started_s < 60
    assert not any(map(is_alive, processes_of(tmp_path)))
