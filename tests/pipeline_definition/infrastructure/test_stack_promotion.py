"""From an approval to the production endpoint: the template's rule and state machine, run by moto's interpreter."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.validate import ParamValidator
from moto import mock_aws
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.responses import SageMakerResponse

from pipeline_definition.infrastructure.template import StackTemplate
from pipeline_definition.models.promote import BESIDE_VARIANT, FORMER_TAG, MAIN_VARIANT
from tests.pipeline_definition.infrastructure.resolved import Resolved
from tests.pipeline_definition.moto_sagemaker import add_update_endpoint

RESOURCES = StackTemplate().content["Resources"]
ROLE = "arn:aws:iam::123456789012:role/execution"
VALUES = {
    "ProductionEndpoint": "sd-production",
    "ProductionInstanceType": "ml.g4dn.xlarge",
    "ProductionInstanceCount": "2",
    "ExecutionRole.Arn": ROLE,
    "ErrorAlarm": "sd-production-errors",
    "LatencyAlarm": "sd-production-latency",
    "ModelPackageGroupName": "sd-pipeline",
}
TASKS = (
    "Serving",
    "Former",
    "CreateModel",
    "CreateBesideModel",
    "CreateEndpointConfig",
    "CreateTwoVariants",
    "CreateEndpoint",
    "UpdateEndpoint",
    "ReplaceVariants",
    "Look",
)


def machine(**parameters: str) -> dict[str, Any]:
    resolved = Resolved(StackTemplate(), VALUES | parameters, VALUES | parameters)
    definition: dict[str, Any] = json.loads(resolved.properties("Promotion")["DefinitionString"])
    return definition


class Aws:
    """moto with the state machine: what a test does to it."""

    def __init__(self) -> None:
        session = boto3.Session(region_name="us-east-1")
        self.sagemaker, self.machines = session.client("sagemaker"), session.client("stepfunctions")
        self.sagemaker.create_model_package_group(ModelPackageGroupName="sd-pipeline")
        # The waits of a real endpoint, minutes each, are no part of what is tested.
        text = re.sub(r'"(Seconds|MaxAttempts)": \d+', r'"\1": 0', json.dumps(machine()))
        made = self.machines.create_state_machine(name="promotion", definition=text, roleArn=ROLE)
        self.machine_arn = made["stateMachineArn"]

    def register(self) -> str:
        package = self.sagemaker.create_model_package(
            ModelPackageGroupName="sd-pipeline",
            ModelApprovalStatus="PendingManualApproval",
            InferenceSpecification={
                "Containers": [{"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-inference:1"}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["image/png"],
            },
        )
        arn: str = package["ModelPackageArn"]
        self.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
        return arn

    def run(self, **detail: Any) -> dict[str, Any]:
        event = {"detail": {"ModelApprovalStatus": "Approved", **detail}}
        # moto names every execution alike unless it is told how.
        started = self.machines.start_execution(
            stateMachineArn=self.machine_arn, name=uuid.uuid4().hex, input=json.dumps(event)
        )
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            execution: dict[str, Any] = self.machines.describe_execution(executionArn=started["executionArn"])
            if execution["status"] != "RUNNING":
                return execution
            time.sleep(0.02)
        raise AssertionError("the promotion does not end")

    def promoted(self, **detail: Any) -> str:
        """Run a promotion that has to succeed; return the configuration that serves then."""
        execution = self.run(**detail)
        assert execution["status"] == "SUCCEEDED", execution
        return self.config

    @property
    def config(self) -> str:
        name: str = self.sagemaker.describe_endpoint(EndpointName="sd-production")["EndpointConfigName"]
        return name

    def about(self, config: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_endpoint_config(EndpointConfigName=config)
        tags = self.sagemaker.list_tags(ResourceArn=found["EndpointConfigArn"])["Tags"]
        return {**found, "former": {tag["Key"]: tag["Value"] for tag in tags}[FORMER_TAG]}

    def package_of(self, variant: dict[str, Any]) -> str:
        container = self.sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
        arn: str = container["ModelPackageName"]
        return arn


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        yield Aws()


def test_an_approved_package_becomes_the_production_endpoint(aws: Aws) -> None:
    package = aws.register()
    config = aws.promoted(ModelPackageArn=package)
    assert re.fullmatch(r"sd-production-v1-[0-9a-f]{8}", config)
    about = aws.about(config)
    (variant,) = about["ProductionVariants"]
    assert (variant["VariantName"], variant["ModelName"], variant["InitialInstanceCount"]) == (MAIN_VARIANT, config, 2)
    assert aws.package_of(variant) == package
    assert about["former"] == ""


def test_the_second_model_takes_over_by_a_canary_and_remembers_the_first(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = add_update_endpoint(monkeypatch)
    first = aws.promoted(ModelPackageArn=aws.register())
    second = aws.promoted(ModelPackageArn=aws.register())
    assert aws.about(second)["former"] == first
    assert [request["EndpointConfigName"] for request in requests] == [second]
    policy = requests[0]["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"]["Type"] == "CANARY"


def test_an_approval_that_is_delivered_twice_promotes_once(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = add_update_endpoint(monkeypatch)
    package = aws.register()
    assert aws.promoted(ModelPackageArn=package) == aws.promoted(ModelPackageArn=package)
    assert requests == []


@pytest.mark.parametrize("first_there", [True, False])
def test_an_endpoint_that_cannot_be_created_is_looked_for_once_more(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, first_there: bool
) -> None:
    create = SageMakerResponse.create_endpoint
    packages = [aws.register(), aws.register()]

    def refused(self: SageMakerResponse) -> Any:
        # Another promotion was quicker, or there is no quota for the hosts.
        if first_there:
            create(self)
        raise ValidationError(message="no endpoint for you")

    add_update_endpoint(monkeypatch)
    monkeypatch.setattr(SageMakerResponse, "create_endpoint", refused)
    execution = aws.run(ModelPackageArn=packages[0])
    if first_there:
        assert execution["status"] == "SUCCEEDED", execution
        assert aws.package_of(aws.about(aws.config)["ProductionVariants"][0]) == packages[0]
    else:
        assert (execution["status"], execution["error"]) == ("FAILED", "NotCreated")
        assert "no endpoint for you" in execution["cause"]


def test_the_way_back_is_at_once_and_not_held_by_alarms(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = add_update_endpoint(monkeypatch)
    first = aws.promoted(ModelPackageArn=aws.register())
    aws.promoted(ModelPackageArn=aws.register())
    assert aws.promoted(EndpointConfigName=first) == first
    assert requests[-1] == {"EndpointName": "sd-production", "EndpointConfigName": first}


def test_two_models_stand_side_by_side_as_two_variants(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = add_update_endpoint(monkeypatch)
    packages = [aws.register(), aws.register()]
    aws.promoted(ModelPackageArn=packages[0])
    pair = {"ModelPackageArn": packages[0], "BesideModelPackageArn": packages[1], "Weight": 0.75, "BesideWeight": 0.25}
    variants = aws.about(aws.promoted(**pair))["ProductionVariants"]
    assert [v["VariantName"] for v in variants] == [MAIN_VARIANT, BESIDE_VARIANT]
    assert [v["InitialVariantWeight"] for v in variants] == [0.75, 0.25]
    assert [aws.package_of(v) for v in variants] == packages
    assert "DeploymentConfig" not in requests[-1]
    # From two to two the traffic shifts step by step; back to one it cannot.
    aws.promoted(**pair)
    assert "DeploymentConfig" in requests[-1]
    aws.promoted(ModelPackageArn=packages[1])
    assert "DeploymentConfig" not in requests[-1]


def test_an_endpoint_that_came_back_to_its_former_model_fails_the_promotion(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_update_endpoint(monkeypatch, rolls_back=True)
    former = aws.promoted(ModelPackageArn=aws.register())
    execution = aws.run(ModelPackageArn=aws.register())
    assert (execution["status"], execution["error"]) == ("FAILED", "RolledBack")
    assert aws.config == former


@pytest.mark.parametrize("state", TASKS)
def test_every_request_has_the_shape_that_sagemaker_takes(state: str) -> None:
    task = machine()["States"][state]
    operation = task["Resource"].rsplit(":", 1)[-1]
    model = botocore.session.Session().get_service_model("sagemaker")
    shape = model.operation_model(operation[0].upper() + operation[1:]).input_shape
    assert shape is not None
    problems = ParamValidator().validate(known(task["Parameters"]), shape)
    assert not problems.has_errors(), problems.generate_report()


def test_every_task_is_looked_at() -> None:
    states = machine()["States"]
    assert {name for name, state in states.items() if state["Type"] == "Task"} == set(TASKS)


def known(value: Any) -> Any:
    """Return a task's parameters with a name, or a weight, where the state's input would be read."""
    if isinstance(value, list):
        return [known(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key.removesuffix(".$"): (0.5 if "Weight" in key else "name") if key.endswith(".$") else known(item)
        for key, item in value.items()
    }


def test_the_update_is_a_canary_that_an_alarm_rolls_back() -> None:
    deployment = machine()["States"]["UpdateEndpoint"]["Parameters"]["DeploymentConfig"]
    routing = deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["Type"], routing["CanarySize"]) == ("CANARY", {"Type": "INSTANCE_COUNT", "Value": 1})
    alarms = {alarm["AlarmName"] for alarm in deployment["AutoRollbackConfiguration"]["Alarms"]}
    assert alarms == {"sd-production-errors", "sd-production-latency"}


@pytest.mark.parametrize("alarm", ["ErrorAlarm", "LatencyAlarm"])
def test_the_alarms_watch_every_variant_that_a_promotion_makes(alarm: str) -> None:
    variants = {
        variant["VariantName"]
        for state in ("CreateEndpointConfig", "CreateTwoVariants")
        for variant in machine()["States"][state]["Parameters"]["ProductionVariants"]
    }
    metrics = [m["MetricStat"]["Metric"] for m in RESOURCES[alarm]["Properties"]["Metrics"] if "MetricStat" in m]
    watched = {d["Value"] for metric in metrics for d in metric["Dimensions"] if d["Name"] == "VariantName"}
    assert watched == variants == {MAIN_VARIANT, BESIDE_VARIANT}


def test_the_rule_starts_the_promotion_for_approvals_in_the_group_alone() -> None:
    rule = RESOURCES["ApprovedRule"]["Properties"]
    assert rule["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [{"Ref": "ModelPackageGroupName"}], "ModelApprovalStatus": ["Approved"]},
    }
    assert rule["Targets"][0]["Arn"] == {"Ref": "Promotion"}


def test_what_a_promotion_makes_has_the_projects_tags_and_ones_own() -> None:
    states = machine(PromotionTags=', {"Key": "CostCenter", "Value": "42"}')["States"]
    for name in ("CreateModel", "CreateBesideModel", "CreateTwoVariants", "CreateEndpointConfig", "CreateEndpoint"):
        tags = {tag["Key"]: tag.get("Value") for tag in states[name]["Parameters"]["Tags"]}
        assert (tags["project"], tags["CostCenter"]) == ("sd-pipeline", "42"), name


def test_a_reservation_is_what_every_variant_of_production_runs_on() -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/endpoints"
    states = machine(ProductionReservationArn=arn)["States"]
    for name in ("CreateTwoVariants", "CreateEndpointConfig"):
        for variant in states[name]["Parameters"]["ProductionVariants"]:
            assert variant["CapacityReservationConfig"]["MlReservationArn"] == arn
    plain = machine()["States"]["CreateEndpointConfig"]["Parameters"]["ProductionVariants"][0]
    assert "CapacityReservationConfig" not in plain
    assert (plain["InstanceType"], plain["InitialInstanceCount"]) == ("ml.g4dn.xlarge", 2)
