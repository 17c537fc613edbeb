"""From the stack's outputs to the production endpoint, by the commands an operator types, against moto.

Stack -> upsert -> start -> describe -> approve -> the registry's event -> the rule's target -> production endpoint
configuration. The rule's pattern, the state machine and its input are those that CloudFormation made from the template.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws
from moto.core.responses import ActionResult
from moto.events.models import EventPattern
from moto.sagemaker.models import FakeEndpointConfig
from moto.sagemaker.responses import SageMakerResponse
from moto.stepfunctions.models import stepfunctions_backends
from typer.testing import CliRunner

from pipeline_definition.checks import preflight
from pipeline_definition.cli import app
from pipeline_definition.infrastructure.stack import Infrastructure
from pipeline_definition.infrastructure.template import TEMPLATE
from pipeline_definition.session import Target
from tests.pipeline_definition.definitions import all_steps

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")
PARAMS = ("--params", "params/octank_100gb.yaml")
STACK = ("--stack", "sd-pipeline")
APPROVAL_EVENT = {
    "source": "aws.sagemaker",
    "detail-type": "SageMaker Model Package State Change",
    "account": "123456789012",
    "region": "us-east-1",
}


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    # Its list of instance types is that of 2020, and it does not know what an execution's steps are.
    monkeypatch.setattr(FakeEndpointConfig, "validate_instance_type", lambda self, instance_type: None)
    none = ActionResult({"PipelineExecutionSteps": []})
    monkeypatch.setattr(SageMakerResponse, "list_pipeline_execution_steps", lambda self: none, raising=False)
    # Images, tables and quotas of the account are no part of this walk.
    monkeypatch.setattr(preflight.AccountChecks, "findings", lambda _self: [])
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        yield Target("us-east-1")


@pytest.fixture
def stack(target: Target, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Deploy the template, less what moto's CloudFormation does not know: the file system is made by its own API."""
    # The waits of a real endpoint, minutes each, are no part of what is walked.
    body = TEMPLATE.read_text(encoding="utf-8").replace('"Seconds": 30', '"Seconds": 0')
    target.client("cloudformation").create_stack(
        StackName="sd-pipeline",
        TemplateBody=body,
        Parameters=[{"ParameterKey": "FileSystemGiB", "ParameterValue": "0"}],
        Capabilities=["CAPABILITY_IAM"],
    )
    run_by_the_interpreter(target)
    outputs = Infrastructure(target).outputs()
    target.client("sagemaker").create_model_package_group(ModelPackageGroupName=outputs["ModelPackageGroupName"])
    made = target.client("fsx").create_file_system(
        FileSystemType="LUSTRE",
        StorageCapacity=1200,
        SubnetIds=[outputs["Subnets"].split(",")[0]],
        LustreConfiguration={"DeploymentType": "PERSISTENT_2", "PerUnitStorageThroughput": 125},
    )["FileSystem"]
    mount = made["LustreConfiguration"].get("MountName") or "abcdefgh"
    outputs |= {"FileSystemId": made["FileSystemId"], "FileSystemPath": f"/{mount}/latents"}
    monkeypatch.setattr(Infrastructure, "outputs", lambda self: outputs)
    return outputs


def run_by_the_interpreter(target: Target) -> None:
    """Give moto's interpreter the machine that CloudFormation made: the two keep theirs apart."""
    (made,) = stepfunctions_backends["123456789012"]["us-east-1"].state_machines
    target.client("stepfunctions").create_state_machine(
        name=made.name, definition=made.definition, roleArn=made.roleArn
    )


def command(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.output


def registered(target: Target, definition: dict[str, Any]) -> str:
    """Register what the definition's Register step says, as SageMaker would at the end of an execution."""
    group = next(item for item in definition["Parameters"] if item["Name"] == "ModelPackageGroup")["DefaultValue"]
    image = next(item for item in definition["Parameters"] if item["Name"] == "InferenceImage")["DefaultValue"]
    specification = all_steps(definition)["Register"]["Arguments"]["InferenceSpecification"]
    container = {
        "Image": image,
        "ModelDataUrl": "s3://bucket/model.tar.gz",
        "Environment": specification["Containers"][0]["Environment"],
    }
    made = target.client("sagemaker").create_model_package(
        ModelPackageGroupName=group,
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": specification["SupportedContentTypes"],
            "SupportedResponseMIMETypes": specification["SupportedResponseMIMETypes"],
        },
    )
    arn: str = made["ModelPackageArn"]
    return arn


def approval(target: Target, arn: str) -> dict[str, Any]:
    """Return the event that SageMaker sends about a package as it stands."""
    about = target.client("sagemaker").describe_model_package(ModelPackageName=arn)
    names = ("ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelApprovalStatus")
    return {**APPROVAL_EVENT, "detail": {name: about[name] for name in names}}


def delivered(target: Target, event: dict[str, Any]) -> list[str]:
    """Do what EventBridge does: start the target of each rule whose pattern the event matches."""
    client, started = target.client("events"), []
    for rule in client.list_rules()["Rules"]:
        if EventPattern(rule["EventPattern"], json.loads(rule["EventPattern"])).matches_event(event):  # type: ignore[arg-type]
            for one in client.list_targets_by_rule(Rule=rule["Name"])["Targets"]:
                answer = target.client("stepfunctions").start_execution(
                    stateMachineArn=one["Arn"], name=f"event-{len(started)}", input=json.dumps(event)
                )
                started.append(answer["executionArn"])
    return started


def ended(target: Target, execution: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        about: dict[str, Any] = target.client("stepfunctions").describe_execution(executionArn=execution)
        if about["status"] != "RUNNING":
            return about
        time.sleep(0.05)
    raise AssertionError("the promotion does not end")


def test_from_the_stacks_outputs_to_the_production_endpoint(target: Target, stack: dict[str, str]) -> None:
    pipeline = command("upsert", *PARAMS, *STACK).strip()
    assert pipeline.endswith(":pipeline/sd-octank")

    sagemaker = target.client("sagemaker")
    definition = json.loads(sagemaker.describe_pipeline(PipelineName="sd-octank")["PipelineDefinition"])
    values = {item["Name"]: item["DefaultValue"] for item in definition["Parameters"]}
    assert (values["FsxId"], values["FsxPath"]) == (stack["FileSystemId"], stack["FileSystemPath"])
    assert values["Bucket"] == stack["BucketName"]
    train = all_steps(definition)["Train"]["Arguments"]
    assert train["VpcConfig"]["Subnets"] == stack["Subnets"].split(",")
    assert train["VpcConfig"]["SecurityGroupIds"] == stack["SecurityGroups"].split(",")
    assert train["RoleArn"] == stack["RoleArn"]

    start = ("start", *PARAMS, *STACK, "--set")
    assert "nothing blocks the start" in command(*start, "TrainingInstanceCount=2", "--dry-run")
    assert sagemaker.list_pipeline_executions(PipelineName="sd-octank")["PipelineExecutionSummaries"] == []
    arn = command(*start, "TrainingInstanceCount=2").strip()
    given = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
    assert given == [{"Name": "TrainingInstanceCount", "Value": "2"}]
    assert arn.rsplit("/", 1)[-1] in command("list", *PARAMS)
    assert json.loads(command("status", arn, *PARAMS, "--json"))["execution_arn"] == arn

    package = registered(target, definition)
    assert delivered(target, approval(target, package)) == []
    assert "is now Approved" in command("models", "approve", "latest", *PARAMS)

    (promotion,) = delivered(target, approval(target, package))
    assert ended(target, promotion)["status"] == "SUCCEEDED"
    endpoint = sagemaker.describe_endpoint(EndpointName=stack["ProductionEndpoint"])
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g5.2xlarge", 2)
    container = sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
    assert container["ModelPackageName"] == package
    assert json.loads(command("production", *PARAMS, "--json"))["variants"][0]["package"] == package
