"""The hosts of one job as processes on this machine, led by a supervisor that ends with them."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import connection
from pathlib import Path

from params.files import import_path
from pipeline_definition.local.processes import kill_marked
from pipeline_definition.local.settings import LOG_EVERY_S, SOURCE_DIR, LocalSettings
from pipeline_definition.local.stop_signal import StopSignal

_SUPERVISOR = "pipeline_definition.local.supervisor"


@dataclass(frozen=True)
class Host:
    """One host: a process, its folder (SAGEMAKER_BASE_DIR) and its log."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended, as its supervisor reports it."""

    cause: str = "lost"
    """finished, failed, stopped, timeout, orphaned, or lost: the supervisor itself died."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Exit status of each host; negative: the signal that killed it."""
    first_failed: str | None = None
    """The host that failed first: the others were ended because of it."""
    error: str = ""
    """Why a host could not be started."""


def run_hosts(
    settings: LocalSettings,
    mark: str,
    hosts: Sequence[Host],
    stop: StopSignal,
    tick: Callable[[], None],
    max_runtime_s: float | None = None,
) -> Outcome:
    """Run hosts until every process of theirs has ended, calling `tick` meanwhile; leave no container behind."""
    group = HostGroup(mark, hosts, settings.grace_s, max_runtime_s)
    try:
        with stop.calling(group.stop):
            return group.wait(tick, LOG_EVERY_S)
    finally:
        if settings.engine is not None:
            settings.engine.remove(mark)


class HostGroup:
    """A running job. `stop` may be called from any thread."""

    def __init__(self, mark: str, hosts: Sequence[Host], grace_s: float, max_runtime_s: float | None = None) -> None:
        self._mark = mark
        self._stopping = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _SUPERVISOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **import_path(SOURCE_DIR)},
        )
        limits = {"mark": mark, "grace_s": grace_s, "max_runtime_s": max_runtime_s}
        self._write(json.dumps({**limits, "hosts": [asdict(host) for host in hosts]}, default=str).encode() + b"\n")

    def stop(self) -> None:
        """Ask for the end: SIGTERM, then SIGKILL after the grace time."""
        with self._stopping:
            self._write(b"stop\n")

    def wait(self, tick: Callable[[], None], every_s: float) -> Outcome:
        """Wait until every process of the job has ended, calling `tick` meanwhile; if `tick` raises, the job ends."""
        assert self._process.stdout is not None
        try:
            while not connection.wait([self._process.stdout.fileno()], every_s):
                tick()
            report = self._process.stdout.read()
        finally:
            self._close()
        return Outcome(**json.loads(report)) if report else Outcome()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _close(self) -> None:
        with self._stopping:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._process.wait()
        if self._process.returncode != 0:
            kill_marked(self._mark)
