"""CloudWatch Logs as its API describes it: empty pages, many streams, throttling, and permissions that are missing."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_definition.artifacts import jobs
from pipeline_definition.runs.executions import ExecutionStep
from pipeline_definition.runs.job_logs import BusyLogsError, JobLog
from tests.pipeline_definition.fake_aws import FakeTarget, refused

STEP = ExecutionStep(
    "Train", "Executing", metadata={"TrainingJob": {"Arn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/job"}}
)
Pages = Sequence[Sequence[str]]


class Logs:
    """Streams of pages: some pages are empty, and the end of a stream is the same token twice."""

    def __init__(self, streams: dict[str, Pages], streams_in_page: int = 50) -> None:
        self.streams, self.streams_in_page = streams, streams_in_page
        self.refusals: list[Exception] = []
        self.asked: list[str] = []

    def target(self) -> FakeTarget:
        return FakeTarget(answers={"logs": {"describe_log_streams": self.describe, "get_log_events": self.events}})

    def describe(self, logGroupName: str, logStreamNamePrefix: str, limit: int, **more: str) -> dict[str, Any]:  # noqa: N803
        self._refuse("DescribeLogStreams")
        first = int(more.get("nextToken", 0))
        names = [name for name in sorted(self.streams) if name.startswith(logStreamNamePrefix)]
        last = first + min(limit, self.streams_in_page)
        found = [{"logStreamName": name, "lastEventTimestamp": 1 + names.index(name)} for name in names[first:last]]
        return {"logStreams": found, **({"nextToken": str(last)} if last < len(names) else {})}

    def events(self, logGroupName: str, logStreamName: str, startFromHead: bool, **more: Any) -> dict[str, Any]:  # noqa: N803
        self._refuse("GetLogEvents")
        pages = self.streams[logStreamName]
        if startFromHead:
            place = int(str(more.get("nextToken", "f/0"))[2:])
            lines, following = (pages[place], place + 1) if place < len(pages) else ([], place)
        else:
            place = int(str(more.get("nextToken", f"b/{len(pages)}"))[2:])
            lines, following = (pages[place - 1], place - 1) if place else ([], 0)
        token = {"nextForwardToken": f"f/{following}", "nextBackwardToken": f"b/{following}"}
        return {"events": [{"timestamp": 1, "message": line, "ingestionTime": 1} for line in lines], **token}

    def _refuse(self, operation: str) -> None:
        self.asked.append(operation)
        if self.refusals:
            raise self.refusals.pop(0)


def lines(log: JobLog) -> list[str]:
    return [line for _, line in log.new_lines()]


@settings(deadline=None)  # the first call loads botocore's shapes
@given(st.lists(st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), max_size=8))
def test_every_line_is_read_once_whatever_pages_are_empty(pages: list[list[str]]) -> None:
    logs = Logs({"job/algo-1": pages})
    log = JobLog(logs.target(), STEP)
    assert lines(log) == [line for page in pages for line in page]
    assert lines(log) == []
    logs.streams["job/algo-1"] = [*pages, [], ["later"]]
    assert lines(log) == ["later"]


def test_all_streams_are_read_however_many_there_are() -> None:
    names = [f"job/algo-{number}" for number in range(1, 131)]
    log = JobLog(Logs({name: [[name]] for name in names}).target(), STEP)
    assert sorted(lines(log)) == sorted(names)


@pytest.mark.parametrize(
    "refusal",
    [
        *(
            refused("GetLogEvents", "Rate exceeded", code)
            for code in ("ThrottlingException", "TooManyRequestsException", "LimitExceededException")
        ),
        refused("GetLogEvents", "later", "ServiceUnavailableException"),
        EndpointConnectionError(endpoint_url="https://logs.us-east-1.amazonaws.com"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_busy_service_is_asked_again_at_the_same_place(refusal: Exception, after: int) -> None:
    logs = Logs({"job/algo-1": [["1"], [], ["2"], ["3"]]})
    log = JobLog(logs.target(), STEP)
    answered = logs._refuse

    def refuse_once(operation: str) -> None:
        if len(logs.asked) == after:
            logs.refusals.append(refusal)
        answered(operation)

    logs._refuse = refuse_once  # type: ignore[method-assign]
    first = lines(log)
    assert log.is_behind
    assert first + lines(log) == ["1", "2", "3"] and not logs.refusals and len(first) < 3
    assert not log.is_behind


@pytest.mark.parametrize("operation", ["DescribeLogStreams", "GetLogEvents"])
def test_a_missing_permission_is_said_once_with_the_action(operation: str) -> None:
    logs = Logs({"job/algo-1": [["1"]]})
    log = JobLog(logs.target(), STEP)

    def refuse(asked: str) -> None:
        if asked == operation:
            raise refused(operation)

    logs._refuse = refuse  # type: ignore[method-assign]
    (line,) = lines(log)
    assert f"logs:{operation}" in line and "/aws/sagemaker/TrainingJobs" in line and "\n" not in line
    assert lines(log) == [] and f"logs:{operation}" in log.problem


def test_no_line_yet_is_no_line_and_anything_else_is_an_error() -> None:
    logs = Logs({})
    logs.refusals = [refused("DescribeLogStreams", "no such group", "ResourceNotFoundException")]
    log = JobLog(logs.target(), STEP)
    assert lines(log) == [] and not log.problem
    logs.refusals = [refused("DescribeLogStreams", "expired", "ExpiredTokenException")]
    with pytest.raises(ClientError, match="expired"):
        lines(log)


def test_the_last_lines_are_those_of_the_newest_stream_whatever_pages_are_empty() -> None:
    logs = Logs({"job/algo-1": [["old"]], "job/algo-2": [["0"], ["1", "2"], [], ["3"], []]}, streams_in_page=1)
    assert JobLog(logs.target(), STEP).tail(3) == ["1", "2", "3"]
    assert JobLog(logs.target(), STEP).tail(40) == ["0", "1", "2", "3"]
    assert JobLog(Logs({}).target(), STEP).tail(40) == []


def test_a_report_waits_for_a_busy_service_and_says_what_it_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BUSY_PAUSES_S", (0.0, 0.0))
    throttled: Callable[[], Exception] = lambda: refused("GetLogEvents", "slow", "ThrottlingException")  # noqa: E731
    logs = Logs({"job/algo-1": [["the reason"]]})
    logs.refusals = [throttled()]
    assert jobs.log_tail(logs.target(), STEP) == ["the reason"]
    logs.refusals = [throttled(), throttled()]
    (line,) = jobs.log_tail(logs.target(), STEP)
    assert "busy" in line
    logs.refusals = [refused("DescribeLogStreams")]
    (line,) = jobs.log_tail(logs.target(), STEP)
    assert "logs:DescribeLogStreams" in line
    with pytest.raises(BusyLogsError):
        logs.refusals = [throttled()]
        JobLog(logs.target(), STEP).tail(1)
