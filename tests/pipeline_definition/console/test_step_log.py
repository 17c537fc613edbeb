"""How the console follows one step's log."""

from typing import Any

from pipeline_definition.console import step_log
from pipeline_definition.console.step_log import MOST_LINES, StepLog, metric_patterns
from pipeline_definition.runs.executions import ExecutionStep
from tests.pipeline_definition.fake_aws import FakeTarget

STEP = ExecutionStep("Train", "Executing", metadata={"TrainingJob": {"Arn": "arn:aws:sagemaker:x:1:training-job/t"}})
METRICS = [{"Name": "loss", "Regex": r"(?:^|\s)loss=([0-9.]+)"}, {"Name": "odd", "Regex": "(?broken"}]


class Written:
    """A log stream that grows; it counts how often it is asked."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.asked = 0

    def target(self) -> FakeTarget:
        def events(nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
            self.asked += 1
            new = [{"message": line} for line in self.lines[int(nextToken) :]]
            return {"events": new, "nextForwardToken": str(len(self.lines))}

        streams = {"logStreams": [{"logStreamName": "t/algo-1"}]}
        return FakeTarget(answers={"logs": {"describe_log_streams": lambda **_: streams, "get_log_events": events}})


def followed(written: Written) -> StepLog:
    step = {
        "Name": "Train",
        "Type": "Training",
        "Arguments": {"AlgorithmSpecification": {"MetricDefinitions": METRICS}},
    }
    return StepLog(written.target(), STEP, metric_patterns({"Steps": [step]})["Train"])


def test_metrics_come_as_the_definition_finds_them_and_progress_lines_are_no_log() -> None:
    written = Written()
    log = followed(written)
    written.lines = ["begins", "step 1 loss=0.5", 'PROGRESS {"done": 1}', "training_loss=9"]
    log.read(is_running=True)
    written.lines += ["loss=0.25"]
    log.read(is_running=True)
    assert [*log.lines] == [f"algo-1: {line}" for line in written.lines if "PROGRESS" not in line]
    assert log.figures == [{"loss": 0.5}, {"loss": 0.25}]


def test_a_long_log_keeps_its_end_and_every_metric() -> None:
    written = Written()
    log = followed(written)
    written.lines = [f"loss={number}.0" for number in range(MOST_LINES + 7)]
    log.read(is_running=True)
    assert (len(log.lines), len(log.figures)) == (MOST_LINES, MOST_LINES + 7)
    assert log.lines[-1] == f"algo-1: loss={MOST_LINES + 6}.0"


def test_a_line_that_is_too_long_is_cut_and_a_credential_removed() -> None:
    written = Written()
    log = followed(written)
    written.lines = ["x" * 10**6, "AKIA" + "Q" * 16]
    log.read(is_running=True)
    assert len(log.lines[0]) < step_log.MOST_CHARACTERS + 20 and log.lines[1] == "algo-1: [removed]"


def test_a_step_that_has_ended_is_asked_until_nothing_more_comes() -> None:
    written = Written()
    log = followed(written)
    written.lines = ["one"]
    log.read(is_running=False)
    written.lines += ["late"]
    log.read(is_running=False)
    log.read(is_running=False)
    asked = written.asked
    log.read(is_running=False)
    assert [*log.lines] == ["algo-1: one", "algo-1: late"] and written.asked == asked
