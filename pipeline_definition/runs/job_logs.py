"""The logs of an execution's jobs, from CloudWatch Logs: one path for AWS and for the local control plane."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from params.layout import PROGRESS_PREFIX
from pipeline_definition.runs.executions import ExecutionStep
from pipeline_definition.session import Target

LOG_GROUPS = {
    "ProcessingJob": "/aws/sagemaker/ProcessingJobs",
    "TrainingJob": "/aws/sagemaker/TrainingJobs",
    "TuningJob": "/aws/sagemaker/TrainingJobs",
}


class JobLog:
    """The growing log of one step's job, over all its hosts (and, for Tune, over all its trials)."""

    def __init__(self, target: Target, step: ExecutionStep) -> None:
        self._client = target.client("logs")
        kind = next((kind for kind in LOG_GROUPS if step.arn(kind)), None)
        self._group = LOG_GROUPS.get(kind or "", "")
        self._prefix = (step.arn(kind) or "").rsplit("/", 1)[-1] if kind else ""
        self._tokens: dict[str, str] = {}

    def new_lines(self) -> Iterator[tuple[str, str]]:
        """Yield (stream, line) for what was written since the last call."""
        for stream in self._streams():
            yield from ((stream, line) for line in self._read(stream))

    def _streams(self) -> list[str]:
        if not self._prefix:
            return []
        try:
            response = self._client.describe_log_streams(
                logGroupName=self._group, logStreamNamePrefix=self._prefix, limit=50
            )
        except ClientError:
            # The group appears with the first line of the first job.
            return []
        return sorted(stream["logStreamName"] for stream in response["logStreams"])

    def _read(self, stream: str) -> Iterator[str]:
        while True:
            options = {"nextToken": self._tokens[stream]} if stream in self._tokens else {}
            response = self._client.get_log_events(
                logGroupName=self._group, logStreamName=stream, startFromHead=True, **options
            )
            yield from (event["message"] for event in response["events"])
            finished = self._tokens.get(stream) == response["nextForwardToken"] or not response["events"]
            self._tokens[stream] = response["nextForwardToken"]
            if finished:
                return


def progress_of(line: str) -> Mapping[str, Any] | None:
    """Return what a job's progress line says, or None for any other line."""
    if not line.startswith(PROGRESS_PREFIX):
        return None
    try:
        value = json.loads(line.removeprefix(PROGRESS_PREFIX))
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
