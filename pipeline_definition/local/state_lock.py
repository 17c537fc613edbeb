"""One control plane for each state folder, and how others find it.

Writes <state>/lock (held until the process ends, in whatever way), <state>/control_plane.json and <state>/id.
"""

import fcntl
import json
import os
import uuid
from pathlib import Path
from typing import Any

from params.files import write_json, write_text
from pipeline_definition.errors import OperatorError
from pipeline_definition.local.settings import PROCESS

_ENDING = " ending"


class StateInUseError(OperatorError):
    exit_status = 2


class StateLock:
    def __init__(self, state: Path, owner: str = "control plane") -> None:
        """Take it, once a process that is ending has let go; StateInUseError names one that goes on."""
        self._state = state
        state.mkdir(parents=True, exist_ok=True)
        self._file = (state / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            if not (holder := self._file.read().strip()).endswith(_ENDING):
                self._file.close()
                who = f"the {owner} with pid {holder or 'unknown'}"
                raise StateInUseError(f"{state} is in use by {who}: stop that one, or choose another") from None
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._write(str(os.getpid()))

    def _write(self, text: str) -> None:
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()

    def announce(self, url: str, runs: Path, backend: str = PROCESS) -> None:
        """Say where the control plane is and how it runs jobs."""
        folders = {"state": str(self._state.resolve()), "runs": str(runs.resolve())}
        write_json(self._state / "control_plane.json", {"url": url, "pid": os.getpid(), **folders, "backend": backend})

    def withdraw(self) -> None:
        """Say that this process is ending: nobody finds it any more, and the next one waits for the end."""
        (self._state / "control_plane.json").unlink(missing_ok=True)
        self._write(f"{os.getpid()}{_ENDING}")

    def close(self) -> None:
        self._file.close()


def state_id(state: Path) -> str:
    """Return the identity of a state folder: its executions carry it."""
    path = state / "id"
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        write_text(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8").strip()


def announced(state: Path) -> dict[str, Any] | None:
    """Return what the control plane of this very folder has announced; it may be dead by now."""
    try:
        value = json.loads((state / "control_plane.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # A copy of the folder names the folder that it was copied from.
    return value if isinstance(value, dict) and value.get("state") == str(state.resolve()) else None
