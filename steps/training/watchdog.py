"""Ends a rank that hangs, and names the rank that the others waited for.

A thread on each rank reports its progress to the others through torchrun's key-value store. When the rank has made no
progress for the time-out, the thread reads the others' reports, names the ranks that are silent or behind, and ends the
process: nothing else interrupts a collective that hangs. It also ends a rank whose torchrun, or first host, is gone.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

import torch.distributed as dist

from steps.training.ranks import LostRankError, World

PERIOD_S: Final = 0.5
TORCHRUN_VARIABLE: Final = "TORCHELASTIC_RUN_ID"
# A rank that sends no report for this long is stopped, dead or cut off.
SILENCE_S: Final = 4.0
# Imports, loading and compiling a model are slow on a busy machine: slowness there is not a hang.
SLOW_PHASES: Final = frozenset({"start", "set-up", "first pass"})
SLOW_FACTOR: Final = 10


@dataclass(frozen=True)
class Report:
    """One rank's progress, as it reports it."""

    rank: int
    host: str
    beats: int
    """Grows whenever the rank makes progress."""
    phase: str
    seen_samples: int
    number: int
    """Grows with every report: shows that the process is alive."""


class Watchdog:
    """One rank's watchdog; a single rank without torchrun needs none."""

    def __init__(
        self, world: World, timeout_s: float, end: Callable[[str | LostRankError], None], environment: Mapping[str, str]
    ) -> None:
        """Call `end` with the reason, from the thread, when the rank hangs."""
        self._world, self._timeout_s, self._end = world, timeout_s, end
        self._parent = os.getppid() if TORCHRUN_VARIABLE in environment else None
        self._store = _store(environment, world) if world.size > 1 else None
        self._phase, self._seen_samples, self._beats, self._reports_sent = "start", 0, 0, 0
        self._beat_s = self._sent_s = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, phase: str, seen_samples: int) -> None:
        """Note that the rank makes progress; costs nothing."""
        self._phase, self._seen_samples = phase, seen_samples
        self._beat_s = time.monotonic()
        self._beats += 1

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            if self._parent is not None and os.getppid() != self._parent:
                self._end("torchrun is gone")
            if self._store is not None:
                self._look(self._store)
            if self._stopped.wait(PERIOD_S):
                return

    def _look(self, store: Any) -> None:
        """Report to the others, and end this rank if it hangs or the head is gone."""
        try:
            self._send(store)
            self._sent_s = time.monotonic()
            if self._sent_s - self._beat_s > self._limit_s():
                self._end(self._reason(store))
        except (RuntimeError, OSError) as error:
            if time.monotonic() - self._sent_s > SILENCE_S:
                self._end(LostRankError(f"the first host is gone: {' '.join(str(error).split())[:200]}"))

    def _limit_s(self) -> float:
        return self._timeout_s * (SLOW_FACTOR if self._phase in SLOW_PHASES else 1)

    def _send(self, store: Any) -> None:
        self._reports_sent += 1
        rank, host = self._world.rank, socket.gethostname()
        report = Report(rank, host, self._beats, self._phase, self._seen_samples, self._reports_sent)
        store.set(str(rank), json.dumps(asdict(report)))

    def _reason(self, store: Any) -> str:
        before = self._reports(store)
        deadline_s = time.monotonic() + SILENCE_S
        while time.monotonic() < deadline_s:
            self._send(store)
            time.sleep(PERIOD_S)
        return explain(self._world, self._limit_s(), before, self._reports(store))

    def _reports(self, store: Any) -> list[Report]:
        keys = [str(rank) for rank in range(self._world.size)]
        return [Report(**json.loads(store.get(key))) for key in keys if store.check([key])]


def explain(world: World, limit_s: float, before: list[Report], after: list[Report]) -> str:
    """Return which ranks the others waited for, from two rounds of reports `SILENCE_S` apart."""
    numbers = {report.rank: report.number for report in before}
    known = {report.rank for report in after}
    never = [f"rank {rank} (never seen)" for rank in range(world.size) if rank not in known]
    silent = [_describe(report) for report in after if numbers.get(report.rank) == report.number]
    fewest = min((report.beats for report in after), default=0)
    behind = [_describe(report) for report in after if report.beats == fewest]
    if never or silent:
        culprits = f"no sign of life from {', '.join(never + silent)}"
    elif len(behind) < len(after):
        culprits = f"the others wait for {', '.join(behind)}"
    else:
        culprits = f"every rank waits in the same place: {behind[0] if behind else 'start'}; look at the network"
    return f"no progress for {limit_s:g} s (see collective_timeout_s): {culprits}"


def _describe(report: Report) -> str:
    return f"rank {report.rank} on {report.host} (in {report.phase!r} after {report.seen_samples} samples)"


def _store(environment: Mapping[str, str], world: World) -> Any:
    """Return a separate connection for the watchdog: the main thread blocks its own while it waits."""
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    library: Any = dist
    store = library.TCPStore(address, port, world.size, False, timedelta(seconds=30))
    return library.PrefixStore("watchdog", store)
