"""How other programs start, find and end the local control plane.

    plane = ensure_up(Path(".sd-pipeline"), Path("runs"), leash=True)
    os.environ.update(plane.environment())

Reads <state>/control_plane.json; the control plane's own output goes to <state>/control_plane.log.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import urlparse

from pipeline_definition.errors import OperatorError
from pipeline_definition.local.environment import aws_environment
from pipeline_definition.local.processes import is_alive
from pipeline_definition.local.settings import PROCESS
from pipeline_definition.local.state_lock import announced

_HEALTH_PATH = "/_local/health"
_POLL_S = 0.05
_ROOT = Path(__file__).resolve().parents[2]


class LocalControlPlaneError(OperatorError):
    """The control plane cannot be reached or started: the message says why."""


class LocalControlPlane:
    """A control plane that runs."""

    def __init__(
        self,
        url: str,
        pid: int,
        state: Path,
        runs: Path,
        process: subprocess.Popen[bytes] | None = None,
        backend: str = PROCESS,
    ) -> None:
        self.url, self.pid, self.state, self.runs, self.backend = url, pid, state, runs, backend
        self._process = process

    def __enter__(self) -> LocalControlPlane:
        """Return this control plane."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def leashed(self) -> bool:
        """Whether it ends with this process."""
        return self._process is not None and self._leash is not None and not self._leash.closed

    def environment(self) -> dict[str, str]:
        """Return the variables that point boto3, s3fs and the SageMaker SDK to it."""
        return aws_environment(self.url)

    def stay(self) -> None:
        """Let go of the leash: it stays up when this process ends."""
        if self.leashed and self._leash is not None:
            self._leash.write(b"stay\n")
            self._leash.close()

    def close(self, timeout_s: float = 60.0) -> None:
        """End it with everything that it started, if this process holds its leash."""
        if self.leashed and self._leash is not None and self._process is not None:
            with contextlib.suppress(OSError):
                self._leash.close()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its supervisors see it go and end the rest
                self._process.wait()

    @property
    def _leash(self) -> IO[bytes] | None:
        return self._process.stdin if self._process else None


def ensure_up(
    state: Path,
    runs: Path,
    leash: bool = False,
    timeout_s: float = 60.0,
    arguments: tuple[str, ...] = (),
    backend: str = PROCESS,
) -> LocalControlPlane:
    """Return the state folder's control plane; start it unless it runs.

    With `leash`, one that is started here ends with this process, however that ends. One that ran already is not
    leashed. `backend` runs the jobs: `process`, `docker` or `podman`. `arguments` are further ones of
    `python -m pipeline_definition.local`.

    Raises LocalControlPlaneError with the end of its log where it does not start.
    """
    running = is_up(state)
    if running is not None:
        if running.runs != runs.resolve():
            where = f"the control plane of {state} writes its runs to {running.runs}, not to {runs}"
            raise LocalControlPlaneError(f"{where}: name that folder, or end it first")
        if running.backend != backend:
            how = f"the control plane that is up runs jobs by {running.backend}, not by {backend}"
            raise LocalControlPlaneError(f"{how}: `sd-pipeline local down` ends it")
        return running
    state.mkdir(parents=True, exist_ok=True)
    log = state / "control_plane.log"
    command = [sys.executable, "-m", "pipeline_definition.local", "--state", str(state), "--runs", str(runs)]
    command += ["--backend", backend]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *(["--leash"] if leash else []), *arguments],
            stdin=subprocess.PIPE if leash else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**_without_aws(), "PYTHONPATH": str(_ROOT)},
        )
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and process.poll() is None:
        found = is_up(state)
        if found is not None and found.pid == process.pid:
            return LocalControlPlane(found.url, found.pid, found.state, found.runs, process, backend)
        time.sleep(_POLL_S)
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise LocalControlPlaneError(f"the local control plane did not start: {last[0]} (log: {log})")


def is_up(state: Path) -> LocalControlPlane | None:
    """Return the control plane of a state folder, None where none answers."""
    found = announced(state)
    if found is None or not is_alive(int(found["pid"])) or not _answers(found["url"], int(found["pid"])):
        return None
    backend = str(found.get("backend", PROCESS))
    return LocalControlPlane(found["url"], int(found["pid"]), Path(found["state"]), Path(found["runs"]), None, backend)


def down(state: Path, timeout_s: float = 30.0) -> bool:
    """End the control plane of a state folder with everything that it started; return whether there was one.

    Raises LocalControlPlaneError where it does not end in time.
    """
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


def _without_aws() -> dict[str, str]:
    """Return the environment without a real account's credentials and profile: nothing here may reach it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def _answers(url: str, pid: int) -> bool:
    address = urlparse(url)
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        try:
            connection.request("GET", _HEALTH_PATH)
            return bool(json.loads(connection.getresponse().read()).get("pid") == pid)
        finally:
            connection.close()
    return False
