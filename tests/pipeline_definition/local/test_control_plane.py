"""The control plane as clients see it: one process, real jobs, real HTTP."""

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.pipeline_definition.local.conftest import (
    ROLE,
    World,
    processing,
    s3_input,
    s3_output,
    training,
    training_arguments,
    until,
)

EXECUTION_ID = {"Get": "Execution.PipelineExecutionId"}


def out(*, mode: str = "EndOfJob", name: str = "out") -> dict[str, Any]:
    uri = {"Std:Join": {"On": "/", "Values": ["s3://bucket/out", EXECUTION_ID]}}
    return {"ProcessingOutputConfig": {"Outputs": [s3_output(name, uri, mode)]}}


def run_id(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def test_two_hosts_see_the_contract_and_share_their_input(world: World) -> None:
    for number in range(5):
        world.put(f"shards/{number}.tar", b"")
    inputs = {"ProcessingInputs": [s3_input("shards", "s3://bucket/shards", "ShardedByS3Key")]}
    world.create(
        "sharded", [processing("A", "list_inputs", "shards", instances=2, arguments=inputs | out(name="list"))]
    )
    found, _ = world.run("sharded")
    assert found["PipelineExecutionStatus"] == "Succeeded"
    folder = f"out/{run_id(found['PipelineExecutionArn'])}"
    parts = [json.loads(world.get(f"{folder}/algo-{number}.json")) for number in (1, 2)]
    assert sorted(parts[0] + parts[1]) == [f"{number}.tar" for number in range(5)]
    assert {len(part) for part in parts} == {2, 3}


def test_a_jobs_environment_is_its_own(world: World) -> None:
    world.create(
        "environment",
        [processing("A", "environment", instances=2, arguments={"Environment": {"MINE": "yes"}} | out())],
    )
    os.environ["LEAKED"] = "secret"
    found, steps = world.run("environment")
    del os.environ["LEAKED"]
    folder = f"out/{run_id(found['PipelineExecutionArn'])}"
    one, two = (json.loads(world.get(f"{folder}/algo-{number}.json")) for number in (1, 2))
    assert world.plane and one["AWS_ENDPOINT_URL"] == world.plane.url
    assert one["MINE"] == "yes" and "LEAKED" not in one
    assert one["PROCESSING_JOB_ARN"] == steps["A"]["Metadata"]["ProcessingJob"]["Arn"]
    assert (one["MASTER_ADDR"], one["MASTER_PORT"]) == ("127.0.0.1", two["MASTER_PORT"])
    assert one["MASTER_PORT"] != one["RAY_HEAD_PORT"]
    assert one["cwd"] == one["SAGEMAKER_BASE_DIR"] != two["SAGEMAKER_BASE_DIR"]
    assert one["OMP_NUM_THREADS"] == str(max(1, (os.cpu_count() or 1) // 2))
    assert one["OMP_WAIT_POLICY"] == "passive"


def test_a_training_job_gets_its_contract_and_leaves_a_model(world: World) -> None:
    world.put("channel/data.bin", b"1")
    world.put("checkpoints/look/old/state.bin", b"2")
    channel = {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/channel", "S3DataDistributionType": "FullyReplicated"}
    arguments = training_arguments(
        instances=2,
        HyperParameters={"do": "look", "rate": "0.5"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": channel}, "InputMode": "FastFile"}],
        CheckpointConfig={"S3Uri": "s3://bucket/checkpoints/look"},
    )
    world.sagemaker.create_training_job(TrainingJobName="look-1", **arguments)

    def done() -> Any:
        job = world.sagemaker.describe_training_job(TrainingJobName="look-1")
        return job if job["TrainingJobStatus"] != "InProgress" else None

    job = until(done)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    phases = [phase["Status"] for phase in job["SecondaryStatusTransitions"]]
    assert phases == ["Starting", "Downloading", "Training", "Uploading"]
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://bucket/models/look-1/output/model.tar.gz"
    seen = members(world, "models/look-1/output/model.tar.gz")
    assert set(seen) == {"algo-1.json", "algo-2.json"}
    assert json.loads(seen["algo-1.json"]) == [
        "checkpoints/old/state.bin",
        "input/config/hyperparameters.json",
        "input/config/inputdataconfig.json",
        "input/config/resourceconfig.json",
        "input/data/train/data.bin",
    ]
    with pytest.raises(ClientError, match="exists already"):
        world.sagemaker.create_training_job(TrainingJobName="look-1", **arguments)


def members(world: World, key: str) -> dict[str, bytes]:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(world.get(key))) as archive:
        return {m.name: (archive.extractfile(m) or io.BytesIO()).read() for m in archive.getmembers()}


def test_a_file_system_channel_shows_what_s3_holds(world: World) -> None:
    world.put("latents/laion/0.tar", b"1")
    fsx = world.client("fsx")
    system = fsx.create_file_system(
        FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=["subnet-0123456789abcdef0"]
    )["FileSystem"]["FileSystemId"]
    fsx.create_data_repository_association(
        FileSystemId=system, FileSystemPath="/latents", DataRepositoryPath="s3://bucket/latents"
    )
    source = {
        "FileSystemId": {"Get": "Parameters.FileSystem"},
        "FileSystemAccessMode": "ro",
        "FileSystemType": "FSxLustre",
        "DirectoryPath": "/fsx/latents/laion",
    }
    channel = {"ChannelName": "latents", "DataSource": {"FileSystemDataSource": source}, "InputMode": "File"}
    arguments = {"HyperParameters": {"do": "look"}, "InputDataConfig": [channel]}
    parameter = {"Name": "FileSystem", "Type": "String", "DefaultValue": "fs-00000000000000000"}
    world.create("lustre", [training("Train", arguments=arguments)], [parameter])
    found, steps = world.run("lustre", FileSystem=system)
    assert found["PipelineExecutionStatus"] == "Succeeded"
    name = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rsplit("/", 1)[-1]
    assert b"input/data/latents/0.tar" in members(world, f"models/{name}/output/model.tar.gz")["algo-1.json"]
    found, steps = world.run("lustre")
    assert "there is no file system fs-00000000000000000" in steps["Train"]["FailureReason"]


def test_a_failing_host_fails_the_job_with_its_failure_file_and_its_log(world: World) -> None:
    world.create("failing", [processing("A", "fail", "out of luck", "7", "algo-2", instances=2)])
    found, steps = world.run("failing")
    assert found["PipelineExecutionStatus"] == "Failed"
    reason = steps["A"]["FailureReason"]
    assert reason.startswith("AlgorithmError: out of luck, exit code: 7 (algo-2; log: ")
    assert os.path.isfile(reason.split("log: ")[1].rstrip(")"))  # noqa: PTH113
    name = steps["A"]["Metadata"]["ProcessingJob"]["Arn"].rsplit("/", 1)[-1]
    job = world.sagemaker.describe_processing_job(ProcessingJobName=name)
    assert (job["ProcessingJobStatus"], job["FailureReason"]) == ("Failed", reason)
    assert "out of luck" in found["FailureReason"]


def test_a_program_that_says_nothing_fails_with_its_last_lines(world: World) -> None:
    world.create("silent", [processing("A", "exit_silently", "4")])
    _, steps = world.run("silent")
    assert "AlgorithmError: last words, exit code: 4" in steps["A"]["FailureReason"]


def test_a_lost_host_is_tried_again_as_the_policy_says(world: World) -> None:
    policy = {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 0, "MaxAttempts": 3}
    counted = {"Std:Join": {"On": "/", "Values": [str(world.folder), EXECUTION_ID]}}
    world.create("lost", [processing("A", "die_first", counted, RetryPolicies=[policy])])
    found, steps = world.run("lost")
    assert (found["PipelineExecutionStatus"], steps["A"]["AttemptCount"]) == ("Succeeded", 3)
    world.create("lost-at-once", [processing("A", "die_first", counted)])
    _, steps = world.run("lost-at-once")
    assert "the host was lost (SIGKILL)" in steps["A"]["FailureReason"]


def test_a_job_ends_at_its_time_limit_and_leaves_what_it_had(world: World) -> None:
    arguments = {
        "HyperParameters": {"do": "count", "to": "100", "pause": "0.2"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 4},
        "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints/limited"},
    }
    world.create("limited", [training("Train", arguments=arguments)])
    _, steps = world.run("limited")
    assert steps["Train"]["FailureReason"] == "MaxRuntimeExceeded: the job ran longer than 4 s"
    name = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rsplit("/", 1)[-1]
    job = world.sagemaker.describe_training_job(TrainingJobName=name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert "checkpoints/limited/001/manifest.json" in world.keys("checkpoints/limited")


def test_an_unchanged_step_is_taken_from_an_earlier_execution(world: World) -> None:
    parameters: list[dict[str, Any]] = [
        {"Name": "Text", "Type": "String", "DefaultValue": "a"},
        {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
    ]
    write = processing(
        "Write",
        *("write", "file", {"Get": "Parameters.Text"}),
        instances={"Get": "Parameters.Count"},
        arguments=out(),
        CacheConfig={"Enabled": True, "ExpireAfter": "P1D"},
    )
    source = {"Get": "Steps.Write.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"}
    read = processing(
        "Read", "list_inputs", "in", arguments={"ProcessingInputs": [s3_input("in", source)]} | out(name="list")
    )
    world.create("cached", [write, read], parameters)
    first, _ = world.run("cached")
    _, steps = world.run("cached", Count="2")
    source_arn = steps["Write"]["CacheHitResult"]["SourcePipelineExecutionArn"]
    assert source_arn == first["PipelineExecutionArn"]
    assert "CacheHitResult" not in steps["Read"] and steps["Read"]["StepStatus"] == "Succeeded"
    _, steps = world.run("cached", Text="b")
    assert "CacheHitResult" not in steps["Write"]


def tuning(seed: int | None = 3, trials: int = 4) -> dict[str, Any]:
    ranges = [{"Name": "rate", "MinValue": "0.001", "MaxValue": "1", "ScalingType": "Logarithmic"}]
    config: dict[str, Any] = {
        "Strategy": "Bayesian",
        "ResourceLimits": {"MaxParallelTrainingJobs": 2, "MaxNumberOfTrainingJobs": trials},
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ParameterRanges": {"ContinuousParameterRanges": ranges},
    } | ({} if seed is None else {"RandomSeed": seed})
    definition = training_arguments(StaticHyperParameters={"do": "model"})
    return {
        "Name": "Tune",
        "Type": "Tuning",
        "Arguments": {"HyperParameterTuningJobConfig": config, "TrainingJobDefinition": definition},
    }


def test_a_search_finds_the_same_best_trial_each_time_and_hands_it_on(world: World) -> None:
    best = {"Get": "Steps.Tune.BestTrainingJob.TunedHyperParameters['rate']"}
    train = training("Train", arguments={"HyperParameters": {"rate": best}})
    world.create("search", [tuning(), train])
    rates = []
    for _ in range(2):
        found, steps = world.run("search")
        assert found["PipelineExecutionStatus"] == "Succeeded"
        name = steps["Tune"]["Metadata"]["TuningJob"]["Arn"].rsplit("/", 1)[-1]
        trials = world.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        values = [
            float(trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])
            for trial in trials["TrainingJobSummaries"]
        ]
        assert len(values) == 4
        job = world.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        assert job["TrainingJobStatusCounters"]["Completed"] == 4
        tuned = float(job["BestTrainingJob"]["TunedHyperParameters"]["rate"])
        assert tuned == pytest.approx(min(values))
        trained = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rsplit("/", 1)[-1]
        metrics = world.sagemaker.describe_training_job(TrainingJobName=trained)["FinalMetricDataList"]
        assert metrics[0]["Value"] == pytest.approx(tuned)
        rates.append(sorted(values))
    assert rates[0] == rates[1]


def test_a_search_fails_only_when_every_trial_does(world: World) -> None:
    step = tuning(trials=2)
    step["Arguments"]["TrainingJobDefinition"]["StaticHyperParameters"] = {"do": "fail"}
    world.create("hopeless", [step])
    _, steps = world.run("hopeless")
    assert "all 2 trials failed: AlgorithmError: the reason" in steps["Tune"]["FailureReason"]


def gate(threshold: Any, yes: list[Any], message: str = "too high") -> list[dict[str, Any]]:
    evaluate = processing(
        "Evaluate",
        *("write", "metrics.json", '{"fid": {"value": 3.5}}'),
        arguments=out(),
        PropertyFiles=[{"PropertyFileName": "Metrics", "OutputName": "out", "FilePath": "metrics.json"}],
    )
    fid = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Metrics"}, "Path": "fid.value"}}
    failed = {
        "Name": "GateFailed",
        "Type": "Fail",
        "Arguments": {"ErrorMessage": {"Std:Join": {"On": " ", "Values": ["FID", fid, message, threshold]}}},
    }
    condition = {"Type": "LessThanOrEqualTo", "LeftValue": fid, "RightValue": threshold}
    arguments = {"Conditions": [condition], "IfSteps": yes, "ElseSteps": [failed]}
    return [evaluate, {"Name": "Gate", "Type": "Condition", "Arguments": arguments}]


def test_the_gate_takes_one_side_and_says_why_it_failed(world: World) -> None:
    parameter = {"Name": "MaxFid", "Type": "Float", "DefaultValue": 5.0}
    world.create("gate", gate({"Get": "Parameters.MaxFid"}, [processing("Passed", "say", "hello")]), [parameter])
    _, steps = world.run("gate")
    assert steps["Gate"]["Metadata"]["Condition"]["Outcome"] == "True"
    assert set(steps) == {"Evaluate", "Gate", "Passed"}
    found, steps = world.run("gate", MaxFid="1")
    assert set(steps) == {"Evaluate", "Gate", "GateFailed"}
    assert steps["GateFailed"]["FailureReason"] == "FID 3.5 too high 1.0"
    assert "FID 3.5 too high 1.0" in found["FailureReason"]


def test_a_bad_parameter_or_definition_is_refused_at_once(world: World) -> None:
    parameter = {"Name": "InstanceCount", "Type": "Integer", "DefaultValue": 1}
    world.create("strict", [processing("A", "say", "x")], [parameter])
    for given, message in (
        ({"InstanceCuont": "1"}, "did you mean InstanceCount"),
        ({"InstanceCount": "x"}, "expected Integer"),
    ):
        with pytest.raises(ClientError, match=message) as caught:
            world.start("strict", **given)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="step 'X': unknown type of step 'EMR'"):
        world.create("unknown", [{"Name": "X", "Type": "EMR", "Arguments": {}}])
    with pytest.raises(ClientError, match="does not exist"):
        world.start("never-made")


def test_a_lambda_step_is_refused_by_name_before_anything_runs(world: World) -> None:
    function = "arn:aws:lambda:us-east-1:123456789012:function:notify"
    step = {"Name": "Notify", "Type": "Lambda", "FunctionArn": function, "Arguments": {}}
    with pytest.raises(ClientError, match="step 'Notify': unknown type of step 'Lambda'"):
        world.create("lambda", [step])


def test_a_request_with_a_wrong_type_names_the_argument(world: World) -> None:
    wrong = processing("A", "say", "x", instances="two")
    with pytest.raises(ClientError, match=r"ProcessingResources\.ClusterConfig\.InstanceCount: expected a integer"):
        world.create("wrong", [wrong])


def test_logs_are_in_cloudwatch_and_in_the_runs_folder(world: World) -> None:
    world.create("logged", [processing("A", "say", "a line for the log")])
    found, steps = world.run("logged")
    assert "a line for the log" in world.log(found["PipelineExecutionArn"], "A/algo-1.log")
    name = steps["A"]["Metadata"]["ProcessingJob"]["Arn"].rsplit("/", 1)[-1]
    logs = world.client("logs")
    group = "/aws/sagemaker/ProcessingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/algo-1")["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"])["events"]
    assert [event["message"] for event in events] == ["a line for the log"]


def test_continuous_outputs_are_in_s3_while_the_job_runs_and_a_stop_ends_every_process(world: World) -> None:
    world.create(
        "stopped", [processing("A", "write_slowly", arguments=out(mode="Continuous")), processing("B", "breed")]
    )
    arn = world.start("stopped")
    until(lambda: world.keys(f"out/{run_id(arn)}/first.txt"))
    until(lambda: "bred" in world.log(arn, "B/algo-1.log"))
    assert len(world.processes()) >= 3
    world.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="t" * 32)
    assert world.wait(arn)["PipelineExecutionStatus"] == "Stopped"
    assert {step["StepStatus"] for step in world.steps(arn).values()} == {"Stopped"}
    assert world.processes() == []


def test_an_operation_that_is_not_here_is_an_error_at_once(world: World) -> None:
    began_s = time.monotonic()
    with pytest.raises(ClientError, match="ListMlflowTrackingServers is not supported on this machine"):
        world.sagemaker.list_mlflow_tracking_servers()
    assert time.monotonic() - began_s < 2
    answer = world.client("iam").simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:role/x", ActionNames=["s3:GetObject"]
    )
    assert answer["EvaluationResults"][0]["EvalDecision"] == "allowed"


@pytest.mark.parametrize("header", ["Origin", "Host"])
def test_a_web_page_is_not_answered(world: World, header: str) -> None:
    assert world.plane
    target = "SageMaker.ListPipelines"
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1", header: "http://evil.example"}
    request = urllib.request.Request(world.plane.url, data=b"{}", headers=headers)
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        urllib.request.urlopen(request)
    caught.value.close()


def test_the_control_plane_rests_when_nothing_runs(world: World) -> None:
    assert world.plane
    process = psutil.Process(world.plane.pid)
    before = process.cpu_times()
    time.sleep(1.5)
    after = process.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) < 0.05


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"PipelineName": 5}'])
def test_a_request_that_is_none_is_a_400(world: World, body: bytes) -> None:
    assert world.plane
    where = urlsplit(world.plane.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)
    scope = (
        "AWS4-HMAC-SHA256 Credential=local/20200101/us-east-1/sagemaker/aws4_request, SignedHeaders=host, Signature=0"
    )
    headers = {"Authorization": scope, "X-Amz-Target": "SageMaker.StartPipelineExecution"}
    with contextlib.closing(connection):
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        assert answer.status == 400 and b"Exception" in answer.read()


def test_a_presigned_address_expires(world: World) -> None:
    world.put("signed", b"1")
    for version in ("s3", "s3v4"):
        s3 = world.client("s3", Config(signature_version=version))
        fresh, old = (
            s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "signed"}, t) for t in (60, -1)
        )
        assert urllib.request.urlopen(fresh).read() == b"1"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(old)


def test_schedules_are_refused(world: World) -> None:
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:sagemaker:startPipelineExecution", "RoleArn": ROLE}
    with pytest.raises(ClientError, match="Schedules are not supported"):
        world.client("scheduler").create_schedule(
            Name="s", ScheduleExpression="rate(1 day)", FlexibleTimeWindow={"Mode": "OFF"}, Target=target
        )
    with pytest.raises(ClientError, match="Schedules are not supported"):
        world.client("events").put_rule(Name="r", ScheduleExpression="rate(1 day)")


def test_a_streamed_answer_is_refused_by_name(world: World) -> None:
    with pytest.raises(ClientError, match=r"endpoint.*no"):
        world.client("sagemaker-runtime").invoke_endpoint_with_response_stream(EndpointName="no", Body=b"{}")


def test_what_a_processing_job_leaves_as_its_message_is_in_its_description(world: World) -> None:
    message = "import os; open(os.environ['SAGEMAKER_BASE_DIR'] + '/output/message', 'w').write('all went well')"
    step = processing("A")
    step["Arguments"]["AppSpecification"]["ContainerEntrypoint"] = ["python", "-c", message]
    world.create("message", [step])
    _, steps = world.run("message")
    name = steps["A"]["Metadata"]["ProcessingJob"]["Arn"].rsplit("/", 1)[-1]
    assert world.sagemaker.describe_processing_job(ProcessingJobName=name)["ExitMessage"] == "all went well"


def test_a_script_that_an_sdk_sends_runs_at_its_own_path(world: World) -> None:
    world.put("code/pre.py", b"import sys; print('ran', sys.argv[1:])")
    step = processing("A", "--n", "3", arguments={"ProcessingInputs": [s3_input("code", "s3://bucket/code/pre.py")]})
    step["Arguments"]["AppSpecification"]["ContainerEntrypoint"] = ["python3", "/opt/ml/processing/input/code/pre.py"]
    world.create("script", [step])
    found, _ = world.run("script")
    assert "ran ['--n', '3']" in world.log(found["PipelineExecutionArn"], "A/algo-1.log")


def test_a_search_ends_with_the_trial_that_reaches_its_target(world: World) -> None:
    step = tuning(trials=4)
    config, training_job = (
        step["Arguments"][name] for name in ("HyperParameterTuningJobConfig", "TrainingJobDefinition")
    )
    config["ResourceLimits"]["MaxParallelTrainingJobs"] = 1
    config["TuningJobCompletionCriteria"] = {"TargetObjectiveMetricValue": 1e9}
    # As the SDK writes it.
    training_job["HyperParameterTuningResourceConfig"] = training_job.pop("ResourceConfig")
    world.create("target", [step])
    _, steps = world.run("target")
    name = steps["Tune"]["Metadata"]["TuningJob"]["Arn"].rsplit("/", 1)[-1]
    job = world.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert sum(job["TrainingJobStatusCounters"].values()) == 1
