"""A promotion is over when its endpoint is at rest, not when its state machine is."""

from typing import Any, cast
from unittest.mock import Mock

import pytest

from pipeline_definition.errors import OperatorError
from pipeline_definition.models.promote import Production
from pipeline_definition.session import Target


def production(*statuses: str) -> tuple[Production, list[str]]:
    """Return a production endpoint that has one status after the other, behind a state machine that has succeeded."""
    sagemaker, machines, said = Mock(), Mock(), list[str]()
    machines.describe_execution.return_value = {"status": "SUCCEEDED"}
    answers = [
        {"EndpointStatus": status, "EndpointConfigName": "config", "FailureReason": "cannot serve this"}
        for status in statuses
    ]
    sagemaker.describe_endpoint.side_effect = answers
    sagemaker.describe_endpoint_config.return_value = {"EndpointConfigArn": "arn", "ProductionVariants": []}
    sagemaker.list_tags.return_value = {"Tags": []}
    target: Any = Mock()
    target.client = lambda name: {"sagemaker": sagemaker, "stepfunctions": machines}[name]
    outputs = {"ProductionEndpoint": "live", "PromotionArn": "arn"}
    return Production(cast(Target, target), outputs, say=said.append, interval_s=0.0), said


def test_a_second_promotion_of_the_same_package_waits_for_the_first_ones_endpoint() -> None:
    place, said = production("Creating", "Creating", "InService")
    assert place.follow("execution").status == "InService"
    assert said == ["live: Creating", "live: InService"]


def test_an_endpoint_that_failed_is_no_success_whatever_the_state_machine_says() -> None:
    place, _ = production("Creating", "Failed")
    with pytest.raises(OperatorError, match="live is Failed: cannot serve this"):
        place.follow("execution")
