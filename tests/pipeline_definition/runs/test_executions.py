"""What is sent to SageMaker for an action of a person."""

from typing import Any

import pytest

from pipeline_definition.runs.executions import Executions
from tests.pipeline_definition.fake_aws import FakeTarget, refused

ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/abcdefghijkl"


@pytest.fixture
def sent() -> list[str]:
    return []


@pytest.fixture
def executions(sent: list[str]) -> Executions:
    def note(ClientRequestToken: str, **more: Any) -> dict[str, Any]:  # noqa: N803
        sent.append(ClientRequestToken)
        return {"PipelineExecutionArn": ARN}

    def create(ClientRequestToken: str, **more: Any) -> dict[str, Any]:  # noqa: N803
        sent.append(ClientRequestToken)
        return {"PipelineArn": ARN}

    def missing(**more: Any) -> dict[str, Any]:
        raise refused("UpdatePipeline", "no such pipeline", "ResourceNotFound")

    answers = {"stop_pipeline_execution": note, "retry_pipeline_execution": note}
    return Executions(
        FakeTarget(answers={"sagemaker": {**answers, "create_pipeline": create, "update_pipeline": missing}})
    )


@pytest.mark.parametrize("action", ["stop", "retry"])
def test_each_action_has_a_token_of_its_own(executions: Executions, sent: list[str], action: str) -> None:
    """With the first one's, SageMaker answers the second with the first one's result: nothing would happen."""
    for _ in range(3):
        getattr(executions, action)(ARN)
    assert len(set(sent)) == 3 and all(32 <= len(token) <= 128 for token in sent)


def test_a_pipeline_that_is_made_again_under_its_name_is_made_anew(executions: Executions, sent: list[str]) -> None:
    for _ in range(2):
        executions.upsert("p", "{}", "arn:aws:iam::123456789012:role/r", "bucket")
    assert len(set(sent)) == 2
