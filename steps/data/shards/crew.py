"""Processes of one host that make shards: led by the job's own process, or by an actor of Ray.

A process that ends, or is ended, costs its shard a try. When the leading process ends, however it ends, the others end
at once: the pipe that only it holds closes. Nothing is shared that a stopped process could keep locked for long.
"""

import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from steps.data.fetching.host_names import HostNames
from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.tables.url_table import TableSlice

POLL_S: Final = 0.5

Outcome = VerifiedShard | str
"""A shard, or why there is none."""


class CrewReport(NamedTuple):
    """What a crew has to say."""

    outcomes: list[tuple[int, Outcome]]
    """By the shard's number."""
    rows: int
    """Which its processes have dealt with in all."""


class Crew:
    def __init__(self, maker: ShardMaker, processes: int) -> None:
        """`processes` of 0 are one for each core. They start when there is something to do."""
        self._maker, self._processes = maker, processes or os.cpu_count() or 1
        self._context = multiprocessing.get_context("spawn")
        self._counters: list[Any] = []
        self._idle: SimpleQueue[tuple[Any, Connection]] = SimpleQueue()
        self._busy: dict[int, Any] = {}
        self._outcomes: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
        self._folder = tempfile.TemporaryDirectory(prefix="names-")
        self._names_file = Path(self._folder.name, "names.sqlite")
        HostNames(self._names_file)
        # One thread talks to each process: none waits for another that is stopped.
        self._threads = ThreadPoolExecutor(self._processes)

    def places(self) -> int:
        """Return how many shards it makes at a time."""
        return self._processes

    def exchange(self, begin: list[TableSlice], end: list[int]) -> CrewReport:
        """Begin these shards, end others; return what was made meanwhile, after a moment if there is nothing yet."""
        for number in end:
            if number in self._busy:
                self._busy[number].kill()
        for task in begin:
            self._threads.submit(self._run, task)
        outcomes = []
        with contextlib.suppress(Empty):
            outcomes.append(self._outcomes.get(timeout=POLL_S))
            while True:
                outcomes.append(self._outcomes.get_nowait())
        return CrewReport(outcomes, sum(counter.value for counter in self._counters))

    def close(self) -> None:
        """End all processes, in the middle of what they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._busy.values()):
            process.kill()
        self._threads.shutdown()
        with contextlib.suppress(Empty):
            while True:
                process, pipe = self._idle.get_nowait()
                pipe.close()
                process.join()
        self._folder.cleanup()

    def _run(self, task: TableSlice) -> None:
        process, pipe = self._process()
        self._busy[task.index] = process
        try:
            pipe.send(task)
            outcome = pipe.recv()
            self._idle.put((process, pipe))
        except (EOFError, OSError):
            process.join()
            outcome = "a worker process died"
        del self._busy[task.index]
        self._outcomes.put((task.index, outcome))

    def _process(self) -> tuple[Any, Connection]:
        with contextlib.suppress(Empty):
            return self._idle.get_nowait()
        ours, theirs = self._context.Pipe()
        counter = self._context.RawValue("q", 0)
        self._counters.append(counter)
        told = (self._maker, counter, theirs, self._names_file)
        process = self._context.Process(target=_work, args=told, daemon=True)
        process.start()
        theirs.close()
        return process, ours


def _work(maker: ShardMaker, counter: Any, pipe: Connection, names_file: Path) -> None:
    """Make shards until the other end of the pipe closes."""
    tasks: SimpleQueue[TableSlice] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, tasks), daemon=True).start()

    def count_row() -> None:
        counter.value += 1

    # webdataset imports torch where there is one: a second or two and 300 MB in every process, for nothing.
    sys.modules["torch"] = None  # type: ignore[assignment]
    maker.prepare(count_row, names_file)
    while True:
        task = tasks.get()
        try:
            pipe.send(maker.make(task))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def _receive(pipe: Connection, tasks: "SimpleQueue[TableSlice]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            tasks.put(pipe.recv())
    os._exit(1)
