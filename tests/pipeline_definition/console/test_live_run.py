"""What the console shows of an execution while it trains."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from params.layout import metric_regex
from pipeline_definition.console.live_run import LiveRun
from tests.pipeline_definition.fake_aws import FakeTarget
from tests.pipeline_definition.local.conftest import training

ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/abcdefghijkl"
NAMES = ("seen_samples", "training_loss")


class Training:
    """An execution whose only step is at work; it counts how often SageMaker is asked."""

    def __init__(self) -> None:
        self.asked, self.job, self.lines = 0, "first", list[str]()

    def target(self) -> FakeTarget:
        metrics = [{"Name": name, "Regex": metric_regex(name)} for name in NAMES]
        step = training("Train")
        step["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"] = metrics
        definition = {"PipelineDefinition": json.dumps({"Version": "2020-12-01", "Parameters": [], "Steps": [step]})}

        def steps(**_: Any) -> dict[str, Any]:
            self.asked += 1
            arn = f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{self.job}"
            about = {"StepName": "Train", "StepStatus": "Executing", "Metadata": {"TrainingJob": {"Arn": arn}}}
            return {"PipelineExecutionSteps": [about | {"StartTime": datetime.now(UTC)}]}

        def events(nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
            new = [{"message": line} for line in self.lines[int(nextToken) :]]
            return {"events": new, "nextForwardToken": str(len(self.lines))}

        sagemaker = {
            "describe_pipeline_execution": lambda **_: {"PipelineExecutionStatus": "Executing"},
            "list_pipeline_execution_steps": steps,
            "describe_pipeline_definition_for_execution": lambda **_: definition,
            "list_pipeline_parameters_for_execution": lambda **_: {
                "PipelineParameters": [{"Name": "Rate", "Value": "2"}]
            },
            "describe_training_job": lambda **_: {"TrainingJobStatus": "InProgress"},
        }
        streams = {"logStreams": [{"logStreamName": f"{self.job}/algo-1"}]}
        logs = {"describe_log_streams": lambda **_: streams, "get_log_events": events}
        return FakeTarget(answers={"sagemaker": sagemaker, "logs": logs})


@pytest.fixture
def train() -> Training:
    return Training()


def test_metrics_charts_progress_and_parameters_are_as_the_log_has_them_now(train: Training) -> None:
    live = LiveRun(train.target(), ARN, 0.0)
    assert live.parts()["metrics"].is_empty
    train.lines = [f"seen_samples={100 * at} training_loss={1 / at}" for at in range(1, 4)]
    train.lines.append('PROGRESS {"step": "Train", "done": 300, "total": 600, "unit": "samples"}')
    parts = live.parts()
    assert [(fact.label, fact.value) for fact in parts["metrics"].facts][1] == ("training loss", "0.3333")
    assert [chart.title for chart in parts["metrics"].charts] == ["Loss"]
    assert parts["rows"][0]["note"] == "50% of 600 samples" and parts["changed"] == {"Rate": "2"}
    assert live.parts()["metrics"] is parts["metrics"], "what is drawn stays until something is new"
    train.lines.append("seen_samples=400 training_loss=0.125")
    assert live.parts()["metrics"].facts[1].value == "0.1250"


def test_sagemaker_is_asked_no_more_often_than_the_page_says(train: Training) -> None:
    live = LiveRun(train.target(), ARN, 60.0)
    for _ in range(5):
        live.parts()
        live.log("")
    assert train.asked == 1


def test_a_step_that_was_retried_has_the_log_of_its_new_job(train: Training) -> None:
    live = LiveRun(train.target(), ARN, 0.0)
    train.lines = ["of the first job"]
    assert [*live.log("Train")["log"].lines] == ["algo-1: of the first job"]
    train.job, train.lines = "second", ["of the second job"]
    assert [*live.log("Train")["log"].lines] == ["algo-1: of the second job"]
