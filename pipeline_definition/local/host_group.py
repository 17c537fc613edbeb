"""The hosts of one job as processes on this machine, led by a supervisor that ends with them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from params.files import import_path
from pipeline_definition.local.processes import kill_marked

_SUPERVISOR = "pipeline_definition.local.supervisor"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Host:
    """One host: a process, its folder (SAGEMAKER_BASE_DIR) and its log."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path


@dataclass
class Outcome:
    """How a job ended."""

    cause: str = "lost"
    """finished, failed, stopped, timeout, or lost: the supervisor itself died."""
    codes: dict[str, int] = field(default_factory=dict)
    """Exit status of each host; negative: the signal that killed it."""
    first_failed: str | None = None
    """The host that failed first: the others were ended because of it."""
    error: str = ""
    """Why a host could not be started."""


class HostGroup:
    """A running job. `stop` may be called from any thread."""

    def __init__(self, mark: str, hosts: list[Host], grace_s: float, max_runtime_s: float | None = None) -> None:
        self._mark = mark
        self._stopping = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _SUPERVISOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **import_path(_ROOT)},
        )
        spec = {
            "mark": mark,
            "grace_s": grace_s,
            "max_runtime_s": max_runtime_s,
            "hosts": [asdict(host) for host in hosts],
        }
        self._write(json.dumps(spec, default=str).encode() + b"\n")

    def stop(self) -> None:
        """Ask for the end: SIGTERM, then SIGKILL after the grace time."""
        with self._stopping:
            self._write(b"stop\n")

    def wait(self, tick: Callable[[], None], every_s: float) -> Outcome:
        """Wait until every process of the job has ended, calling `tick` meanwhile; if `tick` raises, the job ends."""
        outcome = Outcome()
        try:
            for event in self._events(tick, every_s):
                _apply(outcome, event)
        finally:
            self._close()
        return outcome

    def _events(self, tick: Callable[[], None], every_s: float) -> Any:
        assert self._process.stdout is not None
        buffer, next_s = b"", time.monotonic() + every_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(max(0.0, next_s - time.monotonic())):
                    block = os.read(self._process.stdout.fileno(), 65536)
                    if not block:
                        return
                    *lines, buffer = (buffer + block).split(b"\n")
                    yield from (json.loads(line) for line in lines)
                if time.monotonic() >= next_s:
                    tick()
                    next_s = time.monotonic() + every_s

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


def _apply(outcome: Outcome, event: dict[str, Any]) -> None:
    if event["event"] == "exited" and event["code"] != 0 and outcome.first_failed is None:
        outcome.first_failed = event["host"]
    elif event["event"] == "unstartable":
        outcome.first_failed, outcome.error = event["host"], event["error"]
    elif event["event"] == "done":
        outcome.cause, outcome.codes = event["cause"], event["codes"]
