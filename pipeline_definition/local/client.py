"""How other programs start, find and end the local control plane.

    plane = ensure_up(Path(".sd-pipeline"), Path("runs"), leash=True)
    os.environ.update(plane.environment())

Reads <state>/control_plane.json; the control plane's own output goes to <state>/control_plane.log.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from params.cloud import Cloud
from params.files import import_path
from pipeline_definition.errors import OperatorError
from pipeline_definition.local.environment import aws_environment
from pipeline_definition.local.processes import is_alive
from pipeline_definition.local.settings import HEALTH_PATH, PROCESS, SET_CLOUD, SOURCE_DIR
from pipeline_definition.local.state_lock import announced

_POLL_S = 0.05
_STARTUP_LIMIT_S = 60.0


class LocalControlPlaneError(OperatorError):
    """The control plane cannot be reached or started: the message says why."""


@dataclass(frozen=True)
class LocalControlPlane(contextlib.AbstractContextManager["LocalControlPlane"]):
    """A running control plane; as a context, it is closed at the end."""

    url: str
    pid: int
    state: Path
    runs: Path
    backend: str
    process: subprocess.Popen[bytes] | None = None
    """None: another program started it."""

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def leash(self) -> IO[bytes] | None:
        """What ties it to this process: it ends when this is closed; None where nothing does."""
        leash = self.process.stdin if self.process else None
        return None if leash is None or leash.closed else leash

    def environment(self) -> dict[str, str]:
        return aws_environment(self.url)

    def stay(self) -> None:
        """Let go of the leash: it stays up when this process ends."""
        if self.leash:
            with self.leash as leash:
                leash.write(b"stay\n")

    def close(self, timeout_s: float = 60.0) -> None:
        """End it with everything that it started, if this process holds its leash."""
        if self.leash and self.process:
            with contextlib.suppress(OSError):
                self.leash.close()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()  # its supervisors notice and end the rest
                self.process.wait()


def ensure_up(
    state: Path,
    runs: Path,
    leash: bool = False,
    arguments: tuple[str, ...] = (),
    backend: str = PROCESS,
    cloud: Cloud | None = None,
) -> LocalControlPlane:
    """Return the state folder's control plane, started unless it runs; LocalControlPlaneError says why it is not.

    `cloud` turns its switches, whether it runs or not; None leaves them as they are. With `leash`, one that this call
    starts ends with this process. `arguments` are further ones of `python -m pipeline_definition.local`.
    """
    arguments = ("--backend", backend, *arguments)
    plane = _running(state, runs, backend) or _started(state, runs, leash, arguments)
    if cloud is not None:
        _ask(plane.url, "POST", "/", cloud.model_dump_json(), {"X-Amz-Target": SET_CLOUD})
    return plane


def _running(state: Path, runs: Path, backend: str) -> LocalControlPlane | None:
    running = is_up(state)
    if running and running.runs != runs.resolve():
        where = f"the control plane of {state} writes its runs to {running.runs}, not to {runs}"
        raise LocalControlPlaneError(f"{where}: name that folder, or end it first")
    if running and running.backend != backend:
        how = f"the running control plane runs jobs by {running.backend}, not by {backend}"
        raise LocalControlPlaneError(f"{how}: `sd-pipeline local down` ends it")
    return running


def _started(state: Path, runs: Path, leash: bool, arguments: tuple[str, ...]) -> LocalControlPlane:
    # Now, by name: the control plane would only find out in the middle of a run.
    for folder in (state, runs):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    log = state / "control_plane.log"
    command = [sys.executable, "-P", "-m", "pipeline_definition.local", "--state", str(state), "--runs", str(runs)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *(["--leash"] if leash else []), *arguments],
            stdin=subprocess.PIPE if leash else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Without a real account's credentials and profile, so that nothing can reach it.
            env={**{key: value for key, value in os.environ.items() if key[:4] != "AWS_"}, **import_path(SOURCE_DIR)},
        )
    deadline_s = time.monotonic() + _STARTUP_LIMIT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        running = is_up(state)
        if running is not None and running.pid == process.pid:
            return replace(running, process=process)
        time.sleep(_POLL_S)
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["its log is empty"]
    raise LocalControlPlaneError(f"the local control plane did not start: {last[0]} (log: {log})")


def is_up(state: Path) -> LocalControlPlane | None:
    """Return the control plane of a state folder; None if none answers."""
    plane = announced(state)
    if plane is None or not is_alive(plane["pid"]):
        return None
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        if _ask(plane["url"], "GET", HEALTH_PATH).get("pid") == plane["pid"]:
            state, runs, backend = Path(plane["state"]), Path(plane["runs"]), plane.get("backend", PROCESS)
            return LocalControlPlane(plane["url"], plane["pid"], state, runs, backend)
    return None


def down(state: Path, timeout_s: float = 30.0) -> bool:
    """End a state folder's control plane with all that it started; return whether one ran, if it ends in time."""
    running = is_up(state)
    if running is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + timeout_s
    while is_alive(running.pid):
        if time.monotonic() > deadline_s:
            raise LocalControlPlaneError(f"the control plane with pid {running.pid} does not end")
        time.sleep(_POLL_S)
    return True


def _ask(url: str, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None) -> Any:
    address = urlparse(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        return json.loads(connection.getresponse().read())
