"""The small process that leads one job: it starts the hosts, and ends all of them when one fails or on request.

Reads a line of JSON and then commands from standard input; writes how the job ended as JSON to standard output. When
standard input ends, the control plane has died, and the job ends too.

    python supervisor.py <<< '{"mark": ..., "grace_s": 10, "max_runtime_s": null, "hosts": [{"name": ..., ...}]}'
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline_definition.local.processes import JOB_MARK, kill_marked

STOP = b"stop"


class Supervisor:
    def __init__(self, spec: dict[str, Any], wake: socket.socket) -> None:
        self._spec, self._wake = spec, wake
        self._hosts: dict[str, subprocess.Popen[bytes]] = {}
        self._codes: dict[str, int] = {}
        self._cause: dict[str, str] = {}
        self._kill_at_s = float("inf")
        self._limit_at_s = time.monotonic() + (spec.get("max_runtime_s") or float("inf"))

    def run(self) -> dict[str, Any]:
        """Run the job; return how it ended: `Outcome` of host_group."""
        for host in self._spec["hosts"]:
            if not self._cause:
                self._start(host)
        watching = [sys.stdin.fileno(), self._wake.fileno()]
        while self._codes.keys() != self._hosts.keys():
            due_s = min(self._kill_at_s, float("inf") if self._cause else self._limit_at_s)
            wait_s = None if due_s == float("inf") else max(0.0, due_s - time.monotonic())
            ready, _, _ = select.select(watching, [], [], wait_s)
            if sys.stdin.fileno() in ready and not self._command():
                watching.remove(sys.stdin.fileno())
            if self._wake.fileno() in ready:
                self._wake.recv(4096)
            self._reap()
            self._check_clock()
        kill_marked(self._spec["mark"])
        return {"codes": self._codes, **(self._cause or {"cause": "finished"})}

    def _start(self, host: dict[str, Any]) -> None:
        with Path(host["log"]).open("ab") as log:
            try:
                self._hosts[host["name"]] = subprocess.Popen(
                    host["argv"],
                    cwd=host["folder"],
                    env={**host["environment"], JOB_MARK: self._spec["mark"]},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                log.write(f"cannot run {host['argv']}: {error}\n".encode())
                self._end("failed", first_failed=host["name"], error=str(error))

    def _command(self) -> bool:
        """Read a command of the control plane; return False when the control plane has died."""
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:
            self._end("orphaned")
        elif STOP in data:
            self._end("stopped")
        return bool(data)

    def _reap(self) -> None:
        for name, process in self._hosts.items():
            if name not in self._codes and process.poll() is not None:
                self._codes[name] = process.returncode
                if process.returncode != 0:
                    self._end("failed", first_failed=name)

    def _check_clock(self) -> None:
        now_s = time.monotonic()
        if not self._cause and now_s >= self._limit_at_s:
            self._end("timeout")
        if now_s >= self._kill_at_s:
            self._kill_at_s = float("inf")
            kill_marked(self._spec["mark"])
            for process in self._hosts.values():
                with contextlib.suppress(OSError):
                    process.kill()

    def _end(self, cause: str, **details: str) -> None:
        if self._cause:
            return
        self._cause = {"cause": cause, **details}
        self._kill_at_s = time.monotonic() + self._spec["grace_s"]
        for process in self._hosts.values():
            with contextlib.suppress(OSError):
                process.terminate()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    waking, wake = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Unbuffered: what follows the first line stays in the pipe for select.
    line = sys.stdin.buffer.raw.readline()  # type: ignore[union-attr]
    if line:
        outcome = Supervisor(json.loads(line), wake).run()
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), json.dumps(outcome).encode())


if __name__ == "__main__":
    main()
