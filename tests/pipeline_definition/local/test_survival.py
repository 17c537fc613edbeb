"""What survives a SIGKILL of the control plane, and what does not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline_definition.local.client import LocalControlPlaneError, down, ensure_up, is_up
from pipeline_definition.local.processes import is_alive, marked
from pipeline_definition.local.settings import LocalSettings
from tests.pipeline_definition.local.conftest import ROLE, World, processing, s3_output, training, until


def counting(to: int) -> dict[str, Any]:
    return training(
        "Train",
        arguments={
            "HyperParameters": {"do": "count", "to": str(to), "pause": "0.15"},
            "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"},
        },
        DependsOn=["First"],
    )


def test_a_killed_run_leaves_no_process_and_goes_on_where_it_was(own_world: World) -> None:
    world = own_world
    outputs = {"ProcessingOutputConfig": {"Outputs": [s3_output("out", "s3://bucket/first")]}}
    world.create("counted", [processing("First", "write", "file", "x", arguments=outputs), counting(12)])
    arn = world.start("counted")
    until(lambda: "checkpoints/003/manifest.json" in world.keys("checkpoints"))
    first = world.steps(arn)["First"]
    world.kill()
    until(lambda: not world.processes())

    world.up()
    found = world.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    assert found["PipelineExecutionStatus"] == "Stopped"
    assert "RetryPipelineExecution" in found["FailureReason"]
    interrupted = world.steps(arn)["Train"]
    assert interrupted["StepStatus"] == "Stopped"
    name = interrupted["Metadata"]["TrainingJob"]["Arn"].rsplit("/", 1)[-1]
    assert world.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Stopped"

    world.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="r" * 32)
    assert world.wait(arn)["PipelineExecutionStatus"] == "Succeeded"
    steps = world.steps(arn)
    assert steps["First"] == first
    assert steps["Train"]["AttemptCount"] == 2
    began_from = int(world.log(arn, "Train/algo-1.log").split("from ")[1].split()[0])
    assert began_from >= 3
    assert "from 0" in world.log(arn, "Train/attempt-1/algo-1.log")
    for key in world.keys("checkpoints/"):
        number = int(key.split("/")[1])
        assert world.get(f"checkpoints/{number:03d}/data.bin") == bytes([number]) * 1000


def test_everything_that_was_made_is_there_again(own_world: World) -> None:
    world = own_world
    world.create("kept", [processing("A", "say", "hello")])
    arn = world.start("kept")
    before = world.wait(arn), world.steps(arn)
    world.put("folder/object", b"bytes")
    world.client("iam").create_role(RoleName="kept", AssumeRolePolicyDocument="{}")
    world.client("events").put_rule(Name="kept", EventPattern='{"source": ["aws.sagemaker"]}')
    system = world.client("fsx").create_file_system(
        FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=["subnet-0123456789abcdef0"]
    )["FileSystem"]["FileSystemId"]
    world.sagemaker.create_model_package_group(ModelPackageGroupName="kept")
    package = world.sagemaker.create_model_package(
        ModelPackageGroupName="kept", CustomerMetadataProperties={"fid": "3"}, ModelApprovalStatus="Approved"
    )["ModelPackageArn"]
    world.put("model/weights", b"1")
    source = {"S3DataSource": {"S3Uri": "s3://bucket/model/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
    world.sagemaker.create_model(
        ModelName="kept", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i", "ModelDataSource": source}
    )
    variant = {"VariantName": "all", "ModelName": "kept", "InitialInstanceCount": 1, "InstanceType": "ml.g5.xlarge"}
    world.sagemaker.create_endpoint_config(EndpointConfigName="kept", ProductionVariants=[variant])
    world.sagemaker.create_endpoint(EndpointName="kept", EndpointConfigName="kept")
    until(lambda: world.sagemaker.describe_endpoint(EndpointName="kept")["EndpointStatus"] == "InService")
    pipeline = world.sagemaker.describe_pipeline(PipelineName="kept")

    world.kill()
    until(lambda: not world.processes())
    used = psutil.Process(world.up().pid).cpu_times()
    assert used.user + used.system < 3, "waiting for other work on the machine does not count"

    assert (plain(world.wait(arn)), world.steps(arn)) == (plain(before[0]), before[1])
    assert plain(world.sagemaker.describe_pipeline(PipelineName="kept")) == plain(pipeline)
    assert world.get("folder/object") == b"bytes"
    assert world.client("iam").get_role(RoleName="kept")["Role"]["RoleName"] == "kept"
    assert world.client("events").list_rules()["Rules"][0]["Name"] == "kept"
    assert world.client("fsx").describe_file_systems()["FileSystems"][0]["FileSystemId"] == system
    found = world.sagemaker.describe_model_package(ModelPackageName=package)
    assert (found["CustomerMetadataProperties"], found["ModelApprovalStatus"]) == ({"fid": "3"}, "Approved")
    until(lambda: world.sagemaker.describe_endpoint(EndpointName="kept")["EndpointStatus"] == "InService")
    answer = world.client("sagemaker-runtime").invoke_endpoint(EndpointName="kept", Body=b"again")
    assert b"weights again" in answer["Body"].read()
    logs = world.client("logs")
    until(lambda: logs.describe_log_groups()["logGroups"])


def plain(response: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in response.items() if key != "ResponseMetadata"}


def test_a_second_control_plane_is_refused_and_told_who_is_there(own_world: World) -> None:
    assert own_world.plane
    command = [sys.executable, "-m", "pipeline_definition.local"]
    arguments = ["--state", str(own_world.folder / "state"), "--runs", str(own_world.folder / "runs")]
    second = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 3
    assert f"in use by the control plane with pid {own_world.plane.pid}" in second.stderr
    again = ensure_up(own_world.folder / "state", own_world.folder / "runs")
    assert (again.pid, again.leash) == (own_world.plane.pid, None)
    with pytest.raises(LocalControlPlaneError, match="writes its runs to"):
        ensure_up(own_world.folder / "state", own_world.folder / "elsewhere")


def test_a_control_plane_leaves_its_url_where_it_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline_definition.local", "--leash", "--url-file", str(tmp_path / "url")]
    folders = ["--state", str(tmp_path / "state"), "--runs", str(tmp_path / "runs")]
    with subprocess.Popen([*command, *folders], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as plane:
        url = until(lambda: (tmp_path / "url").exists() and (tmp_path / "url").read_text())
        found = is_up(tmp_path / "state")
        assert found is not None and found.url == url
        plane.communicate()


def test_killing_the_holder_of_the_leash_ends_everything(tmp_path: Path) -> None:
    state = tmp_path / "state"
    holder = leash_holder(tmp_path, stay=False)
    until(lambda: (tmp_path / "held").exists())
    plane = until(lambda: is_up(state))
    holder.kill()
    holder.wait()
    until(lambda: not is_alive(plane.pid))
    assert is_up(state) is None and marked(LocalSettings(state, state).mark) == []


def test_after_stay_it_outlives_the_holder_until_it_is_asked_to_end(tmp_path: Path) -> None:
    state = tmp_path / "state"
    holder = leash_holder(tmp_path, stay=True)
    until(lambda: (tmp_path / "held").exists())
    plane = until(lambda: is_up(state))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    time.sleep(0.5)
    assert is_alive(plane.pid)
    assert down(state)
    assert not is_alive(plane.pid)
    assert not down(state)


def leash_holder(folder: Path, stay: bool) -> subprocess.Popen[bytes]:
    code = f"""
import time
from pathlib import Path
from pipeline_definition.local.client import ensure_up
plane = ensure_up(Path({str(folder / "state")!r}), Path({str(folder / "runs")!r}), leash=True)
{"plane.stay()" if stay else ""}
Path({str(folder / "held")!r}).touch()
time.sleep(60)
"""
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_control_plane_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LocalControlPlaneError, match="unrecognized arguments: --nonsense"):
        ensure_up(tmp_path / "state", tmp_path / "runs", arguments=("--nonsense",))


def test_its_address_is_in_the_state_folder_once_it_answers(tmp_path: Path) -> None:
    with ensure_up(tmp_path / "state", tmp_path / "runs", leash=True) as plane:
        announced = json.loads((tmp_path / "state" / "control_plane.json").read_text())
        assert (announced["url"], announced["pid"]) == (plane.url, plane.pid)


def test_damaged_files_of_an_old_run_cost_that_run_alone(own_world: World) -> None:
    world = own_world
    world.create("p", [processing("A", "say", "x")])
    damaged, kept = world.start("p"), world.start("p")
    for arn in (damaged, kept):
        world.wait(arn)
    world.put("k", b"1")
    assert world.plane
    world.plane.close()
    run = world.folder / "runs" / damaged.rsplit("/", 1)[-1]
    (run / "execution.json").write_text("")
    for name in ("s3.jsonl", "requests.jsonl"):
        with (world.folder / "state" / name).open("a") as file:
            file.write('{"cut": ')
    (world.folder / "state" / "s3" / ".DS_Store").write_text("not a bucket")
    world.up()
    listed = world.sagemaker.list_pipeline_executions(PipelineName="p")["PipelineExecutionSummaries"]
    assert [item["PipelineExecutionArn"] for item in listed] == [kept] and world.get("k") == b"1"
    assert f"{run} is damaged" in (world.folder / "state" / "control_plane.log").read_text()
