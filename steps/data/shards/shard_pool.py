"""The crews of this host, or of all hosts of the job through Ray, and the schedule by which they make shards.

A host that says nothing for a minute is lost: others make its shards, and it gets new ones once it speaks again.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Final

from steps.data.shards.crew import POLL_S, Crew, CrewReport
from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.host_health import HostHealth
from steps.data.shards.schedule import Schedule
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.tables.url_table import TableSlice

SILENT_S: Final = 60.0

Exchange = Callable[[list[TableSlice], list[int]], "Future[CrewReport]"]


class _PooledHost:
    """What this process knows of a host's crew."""

    def __init__(self, exchange: Exchange, places: int) -> None:
        self.exchange, self.places = exchange, places
        self.tasks: dict[int, TableSlice] = {}
        self.to_end: list[int] = []
        self.call: Future[CrewReport] | None = None
        self.asked_s = 0.0
        self.is_lost = False
        self.rows = 0


class ShardPool:
    """Makes shards on hosts."""

    def __init__(
        self, crews: dict[str, tuple[Exchange, int]], limit_s: float, on_progress: Callable[[int], None]
    ) -> None:
        """`crews` are each host's and its places; `on_progress` hears how many rows they have dealt with in all."""
        self._hosts = {name: _PooledHost(*crew) for name, crew in crews.items()}
        self._limit_s, self._on_progress = limit_s, on_progress
        self.health = HostHealth(crews)

    def run(self, tasks: Iterator[TableSlice], is_retry: bool = False) -> Iterator[tuple[int, VerifiedShard]]:
        """Yield each shard with its number. Raises StepError where one cannot be made, or all hosts are sick."""
        schedule = Schedule(tasks, self.health, self._limit_s, is_retry)
        while not schedule.is_finished:
            for name, task in schedule.overdue(time.monotonic()):
                self._hosts[name].to_end.append(task.index)
            for name, host in self._hosts.items():
                if host.call is None:
                    self._ask(name, host, schedule)
            wait([host.call for host in self._hosts.values() if host.call], POLL_S, FIRST_COMPLETED)
            for name, host in self._hosts.items():
                yield from self._hear(name, host, schedule)
            self._on_progress(sum(host.rows for host in self._hosts.values()))

    def _ask(self, name: str, host: _PooledHost, schedule: Schedule) -> None:
        begin = []
        while len(host.tasks) < host.places and (task := schedule.next_for(name, time.monotonic())):
            host.tasks[task.index] = task
            begin.append(task)
        host.call, host.asked_s = host.exchange(begin, host.to_end), time.monotonic()
        host.to_end = []

    def _hear(self, name: str, host: _PooledHost, schedule: Schedule) -> Iterator[tuple[int, VerifiedShard]]:
        call = host.call
        if call is None:
            return
        if not call.done():
            if time.monotonic() - host.asked_s > SILENT_S:
                self._lose(name, host, schedule, f"it has said nothing for {SILENT_S:.0f} s")
            return
        host.call = None
        if (error := call.exception()) is not None:
            if host.is_lost:
                time.sleep(POLL_S)
            self._lose(name, host, schedule, " ".join(str(error).split())[:200])
            return
        if host.is_lost:
            host.is_lost = False
            self.health.join(name)
        outcomes, host.rows = call.result()
        for number, outcome in outcomes:
            # What a host says that was lost meanwhile is another's business now.
            if (task := host.tasks.pop(number, None)) is not None:
                shard = schedule.done(name, task, outcome, time.monotonic())
                if shard is not None:
                    yield number, shard

    def _lose(self, name: str, host: _PooledHost, schedule: Schedule, why: str) -> None:
        if host.is_lost:
            return
        print(f"WARNING host {name} is lost: {why}; others make its shards", flush=True)
        host.is_lost, host.to_end, host.tasks = True, list(host.tasks), {}
        schedule.lost(name)


@contextmanager
def host_pool(maker: ShardMaker, processes: int, on_progress: Callable[[int], None]) -> Iterator[ShardPool]:
    crew, thread = Crew(maker, processes), ThreadPoolExecutor(1)
    try:
        crews: dict[str, tuple[Exchange, int]] = {
            "this host": (lambda begin, end: thread.submit(crew.exchange, begin, end), crew.places())
        }
        yield ShardPool(crews, maker.limit_s, on_progress)
    finally:
        thread.shutdown()
        crew.close()


def cluster_pool(maker: ShardMaker, processes: int, on_progress: Callable[[int], None]) -> ShardPool:
    """Return a pool of processes on each host of the Ray cluster that is up."""
    # It takes seconds to import: only where there is something to share out.
    import ray

    # An actor whose host's node starts anew comes back with it.
    kind = ray.remote(num_cpus=0, max_restarts=-1)(Crew)
    marks = sorted(
        mark for node in ray.nodes() if node["Alive"] for mark in node["Resources"] if mark.startswith("host:")
    )
    told = ray.put(maker)
    actors = {mark: kind.options(resources={mark: 0.01}).remote(told, processes) for mark in marks}
    places = ray.get([actor.places.remote() for actor in actors.values()])
    crews: dict[str, tuple[Exchange, int]] = {}
    for (mark, actor), count in zip(actors.items(), places, strict=True):
        crews[mark.removeprefix("host:")] = _through(actor), count
    return ShardPool(crews, maker.limit_s, on_progress)


def _through(actor: Any) -> Exchange:
    return lambda begin, end: actor.exchange.remote(begin, end).future()
