"""The switches of local.cloud: each makes the control plane answer, or a job end, as AWS would."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import s3fs
from botocore.config import Config
from botocore.exceptions import ClientError

from pipeline_definition.runs.executions import Executions
from pipeline_definition.runs.watch import Watcher
from steps.cloud_faults import cloud_fault
from tests.pipeline_definition.local.conftest import (
    ROLE,
    ImpatientTarget,
    World,
    processing,
    s3_input,
    s3_output,
    training,
    training_arguments,
    until,
)

ONCE = Config(retries={"total_max_attempts": 1})


@pytest.fixture
def hostile(world: World) -> Iterator[Any]:
    """Turn switches for one test."""
    yield world.turn
    world.turn()


def run_job(world: World, name: str, *arguments: str, **changes: Any) -> dict[str, Any]:
    """Run a processing job of the tests' program to its end."""
    step = processing(name, *arguments, **changes)["Arguments"]
    world.sagemaker.create_processing_job(ProcessingJobName=name, **step)

    def ended() -> Any:
        job = world.sagemaker.describe_processing_job(ProcessingJobName=name)
        return job if job["ProcessingJobStatus"] not in ("InProgress", "Stopping") else None

    done: dict[str, Any] = until(ended, 60)
    return done


def train(world: World, name: str, **changes: Any) -> dict[str, Any]:
    world.sagemaker.create_training_job(TrainingJobName=name, **training_arguments(**changes))

    def ended() -> Any:
        job = world.sagemaker.describe_training_job(TrainingJobName=name)
        return job if job["TrainingJobStatus"] not in ("InProgress", "Stopping") else None

    done: dict[str, Any] = until(ended, 60)
    return done


def environment_of(world: World, name: str) -> dict[str, str]:
    output = {"ProcessingOutputConfig": {"Outputs": [s3_output("out", f"s3://bucket/{name}")]}}
    job = run_job(world, name, "environment", arguments=output)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    found: dict[str, str] = json.loads(world.get(f"{name}/algo-1.json"))
    return found


@pytest.mark.parametrize(("switch", "service"), [("throttled_api", "sagemaker"), ("throttled_logs", "logs")])
def test_of_so_many_requests_only_the_last_is_answered(world: World, hostile: Any, switch: str, service: str) -> None:
    hostile(**{switch: 2})
    client = world.client(service, ONCE)
    ask = client.list_endpoints if service == "sagemaker" else client.describe_log_groups
    refused = 0
    for _ in range(6):
        try:
            ask()
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ThrottlingException"
            refused += 1
    assert refused == 4


def test_an_empty_page_comes_before_each_page_with_lines_and_the_end_is_a_token_twice(
    world: World, hostile: Any
) -> None:
    run_job(world, "pages", "say", "one")
    hostile(empty_log_pages=True)
    logs, group = world.client("logs"), "/aws/sagemaker/ProcessingJobs"
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="pages/")["logStreams"]
    options = {"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": True}
    pages, token = [], None
    while True:
        page = logs.get_log_events(**options, **({"nextToken": token} if token else {}))
        pages.append([event["message"] for event in page["events"]])
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]
    assert pages[:2] == [[], ["one"]] and sum(map(len, pages)) == 1


def test_an_action_that_nobody_may_take_is_denied_by_name(world: World, hostile: Any) -> None:
    hostile(denied_actions=("logs:Get*", "sagemaker:CreateEndpoint"))
    with pytest.raises(ClientError, match="not authorized to perform: logs:GetLogEvents"):
        world.client("logs").get_log_events(logGroupName="x", logStreamName="y")
    with pytest.raises(ClientError, match=r"AccessDenied.*sagemaker:CreateEndpoint"):
        world.sagemaker.create_endpoint(EndpointName="x", EndpointConfigName="y")
    assert world.sagemaker.list_endpoints()["Endpoints"] == []


def test_the_jobs_role_is_denied_an_address_and_the_operator_is_not(world: World, hostile: Any) -> None:
    world.put("secret/a.txt", b"a")
    hostile(denied=("s3://bucket/secret",))
    assert world.get("secret/a.txt") == b"a"
    job = run_job(
        world, "reads", "list_inputs", "in", arguments={"ProcessingInputs": [s3_input("in", "s3://bucket/secret/")]}
    )
    assert "Data download failed" in job["FailureReason"] and "(AccessDenied: Access Denied)" in job["FailureReason"]
    output = {"ProcessingOutputConfig": {"Outputs": [s3_output("out", "s3://bucket/secret/out")]}}
    job = run_job(world, "writes", "write", "x.txt", "x", arguments=output)
    assert "Data upload failed" in job["FailureReason"] and "AccessDenied" in job["FailureReason"]
    role = world.as_role("s3")
    with pytest.raises(ClientError, match="AccessDenied"):
        role.get_object(Bucket="bucket", Key="secret/a.txt")
    with pytest.raises(ClientError, match=r"\(403\) when calling the HeadObject"):
        role.head_object(Bucket="bucket", Key="secret/a.txt")
    with pytest.raises(ClientError, match="AccessDenied"):
        role.list_objects_v2(Bucket="bucket", Prefix="secret/")
    assert "Contents" not in role.list_objects_v2(Bucket="bucket", Prefix="secretive")
    asked = {"PolicySourceArn": ROLE, "ActionNames": ["s3:GetObject"]}
    iam = world.client("iam")
    for key, decision in (("secret/*", "implicitDeny"), ("other/*", "allowed")):
        answer = iam.simulate_principal_policy(ResourceArns=[f"arn:aws:s3:::bucket/{key}"], **asked)
        assert [result["EvalDecision"] for result in answer["EvaluationResults"]] == [decision]


def test_the_same_token_gets_the_first_answer(world: World, hostile: Any) -> None:
    step = {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": [processing("A", "say", "x")]}
    about = {"PipelineDefinition": json.dumps(step), "RoleArn": ROLE, "ClientRequestToken": "k" * 32}
    hostile(tokens_honoured=True)
    first = world.sagemaker.create_pipeline(PipelineName="first", **about)["PipelineArn"]
    assert world.sagemaker.create_pipeline(PipelineName="second", **about)["PipelineArn"] == first
    with pytest.raises(ClientError):
        world.sagemaker.describe_pipeline(PipelineName="second")


def test_a_member_of_a_newer_model_is_refused_by_name(world: World, hostile: Any) -> None:
    hostile(refused_members=("KeepAlivePeriodInSeconds",))
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1, "KeepAlivePeriodInSeconds": 60}
    arguments = training_arguments(ResourceConfig=resources)
    with pytest.raises(ClientError, match="unknown member 'KeepAlivePeriodInSeconds' in CreateTrainingJob"):
        world.sagemaker.create_training_job(TrainingJobName="kept-warm", **arguments)
    step = {"Name": "T", "Type": "Training", "Arguments": arguments}
    with pytest.raises(ClientError, match="Unknown Argument member 'KeepAlivePeriodInSeconds'"):
        world.create("kept-warm", [step])


def test_a_type_without_capacity_fails_in_sagemakers_words(world: World, hostile: Any) -> None:
    hostile(no_capacity=("ml.m5.*",))
    words = "CapacityError: Unable to provision requested ML compute capacity"
    assert words in run_job(world, "no-hosts", "say", "x")["FailureReason"]
    assert words in train(world, "no-hosts")["FailureReason"]


def test_a_step_that_waits_for_capacity_says_so_with_the_fix(world: World, hostile: Any) -> None:
    assert world.plane is not None
    hostile(no_capacity=("ml.m5.*",))
    policy = {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 60, "MaxAttempts": 3}
    world.create("waits", [training("T", RetryPolicies=[policy])])
    arn = world.start("waits")
    watcher = Watcher(ImpatientTarget("us-east-1", world.plane.url), arn, 0.1)
    (problem,) = until(lambda: watcher.look().problems)
    assert problem.startswith("T waits to try again: CapacityError") and "take another instance type" in problem
    world.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert world.wait(arn)["PipelineExecutionStatus"] == "Stopped"


def test_a_throttled_look_is_how_it_was_and_the_next_one_goes_on(world: World, hostile: Any) -> None:
    assert world.plane is not None
    world.create("throttled", [processing("S", "say", "x")])
    arn = world.start("throttled")
    executions = Executions(ImpatientTarget("us-east-1", world.plane.url))
    known = executions.describe(arn)
    hostile(throttled_api=1)
    looks = [executions.describe(arn, known) for _ in range(4)]
    assert any("is asked again" in look.problem for look in looks) and any(not look.problem for look in looks)
    with pytest.raises(ClientError, match="ThrottlingException"):
        executions.describe(arn)
        executions.describe(arn)
    hostile()
    world.wait(arn)


def test_every_host_claims_a_gpu_type_whose_gpu_torch_cannot_see(world: World, hostile: Any) -> None:
    hostile(hidden_gpus="ml.g4dn.xlarge")
    environment = environment_of(world, "hidden")
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environment["SD_PIPELINE_INSTANCE_TYPE"] == "ml.g4dn.xlarge"


def test_the_address_of_a_service_without_an_endpoint_does_not_answer(world: World, hostile: Any) -> None:
    hostile(missing_endpoints=("logs",))
    environment = environment_of(world, "alone")
    silent = environment["AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"]
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", urlsplit(silent).port), timeout=0.5)


def test_files_appear_in_the_file_system_after_a_while(world: World, hostile: Any) -> None:
    fsx = world.client("fsx")
    about = {"DeploymentType": "PERSISTENT_2", "PerUnitStorageThroughput": 125}
    system = fsx.create_file_system(
        FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=["subnet-00000000000000000"], LustreConfiguration=about
    )["FileSystem"]["FileSystemId"]
    fsx.create_data_repository_association(
        FileSystemId=system, FileSystemPath="/late", DataRepositoryPath="s3://bucket/late/"
    )
    hostile(import_lag_s=3)
    world.put("late/set/file.txt", b"x")
    began_s = time.monotonic()
    source = {
        "FileSystemId": system,
        "FileSystemType": "FSxLustre",
        "DirectoryPath": "/fsx/late/set",
        "FileSystemAccessMode": "ro",
    }
    channel = {"ChannelName": "latents", "DataSource": {"FileSystemDataSource": source}}
    job = train(world, "late", InputDataConfig=[channel], HyperParameters={"do": "wait", "for": "latents/file.txt"})
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert time.monotonic() - began_s > 3


def test_a_name_of_the_definition_gets_a_suffix_and_is_refused_when_it_is_too_long(world: World, hostile: Any) -> None:
    hostile(name_suffix=13)
    variants = [{"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}]
    world.sagemaker.create_model(ModelName="m", PrimaryContainer={"Image": "i"}, ExecutionRoleArn=ROLE)
    for length, outcome in ((20, "Succeeded"), (51, "Failed")):
        arguments = {"EndpointConfigName": "c" * length, "ProductionVariants": variants}
        world.create(f"suffix-{length}", [{"Name": "C", "Type": "EndpointConfig", "Arguments": arguments}])
        execution, steps = world.run(f"suffix-{length}")
        assert execution["PipelineExecutionStatus"] == outcome, steps
    assert "less than or equal to 63" in steps["C"]["FailureReason"]
    (config,) = world.sagemaker.list_endpoint_configs()["EndpointConfigs"]
    assert len(config["EndpointConfigName"]) == 33


def test_a_job_whose_role_is_denied_says_what_it_asked_for(world: World, hostile: Any) -> None:
    assert world.plane is not None
    world.put("secret/b.txt", b"b")
    hostile(denied=("s3://bucket/secret",))
    files = s3fs.S3FileSystem(key="role", secret="local", endpoint_url=world.plane.url, skip_instance_cache=True)
    for ask, asked in ((files.cat, "s3://bucket/secret/b.txt"), (files.ls, "s3://bucket/secret")):
        with pytest.raises(PermissionError) as error:
            ask("bucket/secret/b.txt" if ask == files.cat else "bucket/secret")
        assert asked in cloud_fault(error.value)
