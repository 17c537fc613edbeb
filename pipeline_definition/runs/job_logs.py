"""The logs of an execution's jobs, from CloudWatch Logs: one path for AWS and for the local control plane.

Reads DescribeLogStreams and GetLogEvents; writes nothing. An empty page is not the end of a stream: the end is the same
token twice. "No line yet" is what ResourceNotFoundException says, and nothing else does.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from params.layout import PROGRESS_PREFIX
from params.s3 import error_code
from pipeline_definition.errors import OperatorError
from pipeline_definition.runs.executions import ExecutionStep, is_busy
from pipeline_definition.session import Target

LOG_GROUPS = {"ProcessingJob": "/aws/sagemaker/ProcessingJobs"}
LOG_GROUPS |= dict.fromkeys(("TrainingJob", "TuningJob"), "/aws/sagemaker/TrainingJobs")
NO_LINE_YET: Final = "ResourceNotFoundException"
DENIED: Final = ("AccessDenied", "UnauthorizedOperation", "NotAuthorized")


class BusyLogsError(Exception):
    """CloudWatch Logs answers later: throttled, unavailable, or out of reach for a moment."""


class LogsNotAllowedError(OperatorError):
    """The caller may not read the logs: the message names the action."""


class JobLog:
    """The growing log of one step's job, over all its hosts (and, for Tune, over all its trials)."""

    def __init__(self, target: Target, step: ExecutionStep) -> None:
        self._client = target.client("logs")
        jobs = {group: arn.rsplit("/", 1)[-1] for kind, group in LOG_GROUPS.items() if (arn := step.arn(kind))}
        self._group, self._prefix = next(iter(jobs.items()), ("", ""))
        self._streams: set[str] = set()
        self._tokens: dict[str, str] = {}
        self.problem = ""
        """Why there are no lines, in one line, where they may not be read."""
        self.is_behind = False
        """Whether the service was too busy at the last call: there may be lines that were not read."""

    def new_lines(self) -> Iterator[tuple[str, str]]:
        """Yield (stream, line) since the last call; a busy service is asked again at the next, a denial told once."""
        if not self._prefix:
            return
        self.is_behind = False
        try:
            self._streams.update(stream["logStreamName"] for stream in self._described())
            for stream in sorted(self._streams):
                yield from ((stream, line) for line in self._read(stream))
        except BusyLogsError:
            self.is_behind = True
        except LogsNotAllowedError as error:
            if not self.problem:
                self.problem = str(error)
                yield (self._prefix, f"warning: {error}")

    def tail(self, count: int) -> list[str]:
        """Return the last lines of the stream written last. Raises BusyLogsError and LogsNotAllowedError."""
        streams = list(self._described()) if self._prefix else []
        newest = max(streams, key=lambda stream: stream.get("lastEventTimestamp", 0), default=None)
        return self._last_lines(newest["logStreamName"], count) if newest else []

    def _described(self) -> Iterator[Mapping[str, Any]]:
        """Yield every stream of the job: a page has 50, and a job may have more hosts."""
        token: str | None = None
        options = {"logGroupName": self._group, "logStreamNamePrefix": self._prefix, "limit": 50}
        while token != "":
            page = self._ask("logs:DescribeLogStreams", self._client.describe_log_streams, options | _next(token))
            yield from page.get("logStreams", ())
            token = page.get("nextToken", "")

    def _read(self, stream: str) -> Iterator[str]:
        options = {"logGroupName": self._group, "logStreamName": stream, "startFromHead": True}
        while True:
            token = self._tokens.get(stream)
            page = self._ask("logs:GetLogEvents", self._client.get_log_events, options | _next(token))
            following = page.get("nextForwardToken", token)
            # Before the lines: whoever stops listening in the middle has had the page.
            self._tokens[stream] = following or ""
            yield from (event["message"] for event in page.get("events", ()))
            if following == token:
                return

    def _last_lines(self, stream: str, count: int) -> list[str]:
        """Read backwards until there are enough lines, or the beginning: the same token twice."""
        options = {"logGroupName": self._group, "logStreamName": stream, "startFromHead": False, "limit": count}
        lines, token = deque[str](maxlen=count), None
        while True:
            page = self._ask("logs:GetLogEvents", self._client.get_log_events, options | _next(token))
            lines.extendleft(str(event["message"]).rstrip() for event in reversed(page.get("events", ())))
            following = page.get("nextBackwardToken", token)
            if following == token or len(lines) == count:
                return list(lines)
            token = following

    def _ask(self, action: str, call: Callable[..., Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = call(**options)
        except (ClientError, ConnectionError, HTTPClientError) as error:
            if is_busy(error):
                raise BusyLogsError(str(error)) from None
            code = error_code(error)
            if code == NO_LINE_YET:
                # The group appears with the first line of the first job, a stream with its host's.
                return {}
            if code.startswith(DENIED):
                raise LogsNotAllowedError(
                    f"the logs of {self._prefix} cannot be read: allow your user or role {action} on the log group "
                    f"{self._group}"
                ) from None
            raise
        return answer


def _next(token: str | None) -> dict[str, str]:
    return {"nextToken": token} if token else {}


def progress_of(line: str) -> Mapping[str, Any] | None:
    """Return what a job's progress line says, or None for any other line."""
    with suppress(json.JSONDecodeError):
        value = json.loads(line.removeprefix(PROGRESS_PREFIX)) if line.startswith(PROGRESS_PREFIX) else None
        return value if isinstance(value, dict) else None
    return None
