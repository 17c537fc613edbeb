"""From an approval to the production endpoint: the template's rule and state machine, run by moto's interpreter."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.validate import ParamValidator
from moto import mock_aws

from pipeline_definition.stack_template import StackTemplate

RESOURCES = StackTemplate().content["Resources"]
ROLE = "arn:aws:iam::123456789012:role/execution"
VALUES = {
    "AWS::Partition": "aws",
    "ProductionEndpoint": "sd-production",
    "ProductionInstanceType": "ml.g4dn.xlarge",
    "ProductionInstanceCount": "2",
    "ExecutionRole.Arn": ROLE,
    "ErrorAlarm": "sd-production-errors",
    "LatencyAlarm": "sd-production-latency",
    "ModelPackageGroupName": "sd-pipeline",
}


def machine() -> dict[str, Any]:
    text = RESOURCES["Promotion"]["Properties"]["DefinitionString"]["Fn::Sub"]
    definition: dict[str, Any] = json.loads(re.sub(r"\$\{([^}]+)\}", lambda match: VALUES[match.group(1)], text))
    return definition


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        yield boto3.Session(region_name="us-east-1")


def register(aws: boto3.Session) -> str:
    client = aws.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName="sd-pipeline")
    package = client.create_model_package(
        ModelPackageGroupName="sd-pipeline",
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [{"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-inference:1"}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["image/png"],
        },
    )
    arn: str = package["ModelPackageArn"]
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    return arn


def run(aws: boto3.Session, definition: dict[str, Any], package: str) -> dict[str, Any]:
    client = aws.client("stepfunctions")
    # The waits of a real endpoint, minutes each, are no part of what is tested.
    text = json.dumps(definition).replace('"Seconds": 30', '"Seconds": 0')
    made = client.create_state_machine(name="promotion", definition=text, roleArn=ROLE)["stateMachineArn"]
    event = {"detail": {"ModelPackageArn": package, "ModelApprovalStatus": "Approved"}}
    started = client.start_execution(stateMachineArn=made, input=json.dumps(event))["executionArn"]
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        execution: dict[str, Any] = client.describe_execution(executionArn=started)
        if execution["status"] != "RUNNING":
            return execution
        time.sleep(0.05)
    raise AssertionError("the promotion does not end")


def test_an_approved_package_becomes_the_production_endpoint(aws: boto3.Session) -> None:
    package = register(aws)
    execution = run(aws, machine(), package)
    assert execution["status"] == "SUCCEEDED", execution
    name = json.loads(execution["output"])["Name"]
    client = aws.client("sagemaker")
    endpoint = client.describe_endpoint(EndpointName="sd-production")
    assert endpoint["EndpointConfigName"] == name
    variant = client.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"][0]
    assert (variant["ModelName"], variant["InitialInstanceCount"]) == (name, 2)
    assert client.describe_model(ModelName=name)["Containers"][0]["ModelPackageName"] == package


def test_an_endpoint_that_came_back_to_its_former_model_fails_the_promotion(aws: boto3.Session) -> None:
    definition = machine()
    # moto has no UpdateEndpoint: one that changed nothing is what a rollback leaves behind.
    definition["States"]["UpdateEndpoint"] = {"Type": "Pass", "Next": "Wait"}
    package = register(aws)
    assert run(aws, machine(), package)["status"] == "SUCCEEDED"
    former = aws.client("sagemaker").describe_endpoint(EndpointName="sd-production")["EndpointConfigName"]
    definition["Comment"] = "a second machine"
    execution = run_again(aws, definition, package)
    assert (execution["status"], execution["error"]) == ("FAILED", "RolledBack")
    assert aws.client("sagemaker").describe_endpoint(EndpointName="sd-production")["EndpointConfigName"] == former


def run_again(aws: boto3.Session, definition: dict[str, Any], package: str) -> dict[str, Any]:
    client = aws.client("stepfunctions")
    for existing in client.list_state_machines()["stateMachines"]:
        client.delete_state_machine(stateMachineArn=existing["stateMachineArn"])
    return run(aws, definition, package)


@pytest.mark.parametrize(
    "state", ["CreateModel", "CreateEndpointConfig", "IsThere", "CreateEndpoint", "UpdateEndpoint"]
)
def test_every_request_has_the_shape_that_sagemaker_takes(state: str) -> None:
    task = machine()["States"][state]
    operation = task["Resource"].rsplit(":", 1)[-1]
    model = botocore.session.Session().get_service_model("sagemaker")
    shape = model.operation_model(operation[0].upper() + operation[1:]).input_shape
    assert shape is not None
    problems = ParamValidator().validate(known(task["Parameters"]), shape)
    assert not problems.has_errors(), problems.generate_report()


def known(value: Any) -> Any:
    """Return a task's parameters with a name where the state's input would be read."""
    if isinstance(value, list):
        return [known(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key.removesuffix(".$"): "name" if key.endswith(".$") else known(item) for key, item in value.items()}


def test_the_update_is_a_canary_that_an_alarm_rolls_back() -> None:
    deployment = machine()["States"]["UpdateEndpoint"]["Parameters"]["DeploymentConfig"]
    routing = deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["Type"], routing["CanarySize"]) == ("CANARY", {"Type": "INSTANCE_COUNT", "Value": 1})
    alarms = {alarm["AlarmName"] for alarm in deployment["AutoRollbackConfiguration"]["Alarms"]}
    assert alarms == {"sd-production-errors", "sd-production-latency"}


def test_the_alarms_watch_the_variant_that_the_promotion_makes() -> None:
    variant = machine()["States"]["CreateEndpointConfig"]["Parameters"]["ProductionVariants"][0]["VariantName"]
    metric = RESOURCES["LatencyAlarm"]["Properties"]["Metrics"][0]["MetricStat"]["Metric"]
    for dimensions in (RESOURCES["ErrorAlarm"]["Properties"]["Dimensions"], metric["Dimensions"]):
        assert {"Name": "VariantName", "Value": variant} in dimensions


def test_the_rule_starts_the_promotion_for_approvals_in_the_group_alone() -> None:
    rule = RESOURCES["ApprovedRule"]["Properties"]
    assert rule["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [{"Ref": "ModelPackageGroupName"}], "ModelApprovalStatus": ["Approved"]},
    }
    assert rule["Targets"][0]["Arn"] == {"Ref": "Promotion"}
