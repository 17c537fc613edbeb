"""The hosts of one job as processes on this machine, led by a supervisor that ends with them."""

import contextlib
import json
import os
import subprocess
import sys
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
    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path


@dataclass(frozen=True)
class Outcome:
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
    """Run hosts until every process of theirs has ended, calling `tick` meanwhile; leave no process, no container.

    A stop is SIGTERM, then SIGKILL after the grace time. If `tick` raises, the job ends.
    """
    supervisor = subprocess.Popen(
        [sys.executable, "-P", "-m", _SUPERVISOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **import_path(SOURCE_DIR)},
    )
    assert supervisor.stdin is not None and supervisor.stdout is not None
    commands, report = supervisor.stdin, supervisor.stdout

    def tell(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended, or its pipe is closed
            commands.write(line.encode() + b"\n")
            commands.flush()

    limits = {"mark": mark, "grace_s": settings.grace_s, "max_runtime_s": max_runtime_s}
    try:
        tell(json.dumps({**limits, "hosts": [asdict(host) for host in hosts]}, default=str))
        with stop.calling(lambda: tell("stop")):
            while not connection.wait([report.fileno()], LOG_EVERY_S):
                tick()
            outcome = report.read()
    finally:
        for stream in (commands, report):
            with contextlib.suppress(OSError):
                stream.close()
        if supervisor.wait() != 0:
            kill_marked(mark)
        if settings.engine is not None:
            settings.engine.remove(mark)
    return Outcome(**json.loads(outcome)) if outcome else Outcome()
