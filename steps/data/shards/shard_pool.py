"""Worker processes that make shards: of this host, or of all hosts of the job through Ray.

A lost worker costs a retry of its shard. When the job's process ends, however it ends, its workers end at once: the
pipe that only it holds closes.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Final

from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.tables.url_table import TableSlice

Outcome = tuple[TableSlice, VerifiedShard | str]

POLL_S: Final = 0.5

# One task for each worker waits ready; a task holds its rows of the table.
TASKS_PER_WORKER: Final = 2

_maker: ShardMaker | None = None
_makers: dict[str, ShardMaker] = {}


class HostPool(contextlib.AbstractContextManager["HostPool"]):
    """Processes of this host. Use as a context manager."""

    def __init__(self, maker: ShardMaker, processes: int, on_progress: Callable[[int], None]) -> None:
        """`on_progress` hears, about twice a second, how many rows the workers have dealt with in all."""
        self._maker, self._processes, self._on_progress = maker, processes, on_progress
        self._context = multiprocessing.get_context("spawn")
        self._counter = self._context.Value("q", 0)
        self._executor: ProcessPoolExecutor | None = None
        self._alive: list[Connection] = []

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, tasks: Iterator[TableSlice]) -> Iterator[Outcome]:
        """Yield each shard, or why it failed."""
        pending: dict[Future[VerifiedShard], TableSlice] = {}
        while True:
            for task in islice(tasks, TASKS_PER_WORKER * self._processes - len(pending)):
                pending[self._submit(task)] = task
            if not pending:
                return
            done, _ = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
            self._on_progress(self._counter.value)
            for future in done:
                yield pending.pop(future), self._outcome(future)

    def _submit(self, task: TableSlice) -> Future[VerifiedShard]:
        for _ in range(2):
            try:
                return self._started().submit(_make, task)
            except BrokenProcessPool:
                self._stop()
        raise BrokenProcessPool("worker processes end as soon as they start")

    def _outcome(self, future: Future[VerifiedShard]) -> VerifiedShard | str:
        try:
            return future.result()
        except BrokenProcessPool:
            return "a worker process died"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            reader, writer = self._context.Pipe(duplex=False)
            self._alive = [reader, writer]
            told = (self._maker, self._counter, reader)
            self._executor = ProcessPoolExecutor(self._processes, self._context, _begin, told)
        return self._executor

    def _stop(self) -> None:
        if self._executor is not None:
            for end in reversed(self._alive):
                end.close()
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


class ClusterPool:
    """Processes on each host of the Ray cluster that is up."""

    def __init__(self, maker: ShardMaker, processes: int) -> None:
        """`processes` of 0 are one for each core."""
        # It takes seconds to import: only where there is something to share out.
        import ray

        self._ray = ray
        hosts = [node for node in ray.nodes() if node["Alive"]]
        cpus = min(float(node["Resources"]["CPU"]) for node in hosts)
        per_host = processes or int(cpus)
        self._limit = TASKS_PER_WORKER * per_host * len(hosts)
        # A retry is the collection's business: it counts them.
        options = {"num_cpus": cpus / per_host, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        self._make = ray.remote(**options)(_make_on_host)
        self._maker = ray.put(maker)

    def run(self, tasks: Iterator[TableSlice]) -> Iterator[Outcome]:
        """Yield each shard, or why it failed."""
        pending: dict[Any, TableSlice] = {}
        while True:
            for task in islice(tasks, self._limit - len(pending)):
                pending[self._make.remote(self._maker, task)] = task
            if not pending:
                return
            done, _ = self._ray.wait(list(pending))
            for result in done:
                yield pending.pop(result), self._outcome(result)

    def _outcome(self, result: Any) -> VerifiedShard | str:
        try:
            shard: VerifiedShard = self._ray.get(result)
            return shard
        except self._ray.exceptions.RayTaskError as error:
            return f"{type(error.cause).__name__}: {error.cause}"
        except self._ray.exceptions.RayError as error:
            return f"a worker died: {' '.join(str(error).split())[:200]}"


ShardPool = HostPool | ClusterPool


def _make_on_host(maker: ShardMaker, task: TableSlice) -> VerifiedShard:
    """Make a shard in a worker of Ray, which keeps what it has set up for the next one."""
    return _makers.setdefault(maker.plan_digest, maker).make(task)


def _begin(maker: ShardMaker, counter: Any, alive: Connection) -> None:
    global _maker
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()

    def count_row() -> None:
        with counter.get_lock():
            counter.value += 1

    # webdataset imports torch where there is one: a second or two and 300 MB in every process, for nothing.
    sys.modules["torch"] = None  # type: ignore[assignment]
    maker.prepare(count_row)
    _maker = maker


def _end_with(alive: Connection) -> None:
    """Wait for the other end of the pipe to close; then this process has no one left to work for."""
    with contextlib.suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)


def _make(task: TableSlice) -> VerifiedShard:
    assert _maker is not None, "the pool's initializer has run"
    return _maker.make(task)
