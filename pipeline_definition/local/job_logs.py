"""A job's log files: read while they grow, into CloudWatch Logs and the job's metrics.

Reads <log dir>/<host>.log; writes log groups /aws/sagemaker/... in moto, so that `logs` is one code path with AWS.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moto.logs.exceptions import ResourceAlreadyExistsException
from moto.logs.models import logs_backends

from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.settings import ACCOUNT, REGION

ENDPOINT_GROUP = "/aws/sagemaker/Endpoints/{name}"
LOG_GROUPS = {"processing-job": "/aws/sagemaker/ProcessingJobs", "training-job": "/aws/sagemaker/TrainingJobs"}
_LAST_LINES = 20
_LAST_CHARACTERS = 900
_moto_lock = threading.Lock()  # moto's log streams are not safe for threads


class LogFile:
    """One host's log from now on: what has been read of it, and the CloudWatch stream that it goes to."""

    def __init__(self, path: Path, stream: str) -> None:
        self.path, self.stream = path, stream
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def new_lines(self, final: bool = False) -> list[str]:
        """Return the lines that were added since the last call; a line without an end waits, unless this is final."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if final and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


class Metrics:
    """The last value of each metric that a job's MetricDefinitions find in its log."""

    def __init__(self, definitions: Iterable[Mapping[str, str]]) -> None:
        """Raise StepFailureError for an invalid regular expression."""
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._values: dict[str, tuple[float, float]] = {}
        for definition in definitions:
            try:
                self._patterns[definition["Name"]] = re.compile(definition["Regex"])
            except re.error as error:
                raise StepFailureError(f"ClientError: metric {definition['Name']!r}: {error}") from None

    def read(self, lines: Iterable[str], time_s: float) -> None:
        for line in lines:
            for name, pattern in self._patterns.items():
                for match in pattern.finditer(line):
                    with contextlib.suppress(ValueError, IndexError, TypeError):
                        self._values[name] = (float(match.group(1)), time_s)

    def as_list(self) -> list[dict[str, Any]]:
        found = self._values.items()
        return [{"MetricName": name, "Value": value, "Timestamp": time_s} for name, (value, time_s) in found]


class JobLogs:
    def __init__(self, group: str, job_name: str, paths: Mapping[str, Path], metrics: Metrics | None = None) -> None:
        started = int(time.time())
        self.files = {host: LogFile(path, f"{job_name}/{host}-{started}") for host, path in paths.items()}
        self._group, self._metrics = group, metrics or Metrics(())

    def pump(self, final: bool = False) -> None:
        """Read what the hosts have written since the last call."""
        now_s = time.time()
        for file in self.files.values():
            lines = file.new_lines(final)
            self._metrics.read(lines, now_s)
            put_lines(self._group, file.stream, lines, now_s)


def last_lines(path: Path) -> str:
    """Return the end of a log: at most 20 lines and 900 characters."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4 * _LAST_CHARACTERS))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.rstrip().splitlines()[-_LAST_LINES:])[-_LAST_CHARACTERS:]


def put_lines(group: str, stream: str, lines: Iterable[str], time_s: float) -> None:
    """Add lines to a CloudWatch stream, which is made with the first of them."""
    backend = logs_backends[ACCOUNT][REGION]
    events = [{"timestamp": int(time_s * 1000), "message": line} for line in lines]
    if not events:
        return
    with _moto_lock:
        with contextlib.suppress(ResourceAlreadyExistsException):
            backend.create_log_group(group, {})
        with contextlib.suppress(ResourceAlreadyExistsException):
            backend.create_log_stream(group, stream)
        backend.put_log_events(group, stream, events)


def archive_logs(folder: Path) -> None:
    """Move the logs of the attempt before out of the way: `attempt-1/`, `attempt-2/`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = list(folder.iterdir())
    current = [path for path in paths if not path.name.startswith("attempt-")]
    if current:
        target = folder / f"attempt-{1 + len(paths) - len(current)}"
        target.mkdir()
        for path in current:
            path.rename(target / path.name)
