"""`sd-pipeline probe --local`: two hosts, a processing job and an endpoint as processes, and nothing left of them."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.end_to_end.conftest import COMMAND, TINY, clean_environment


@pytest.fixture
def place(tmp_path: Path) -> Iterator[list[str]]:
    """The options of a state folder whose control plane outlives the commands."""
    where = ["--state", str(tmp_path / "state")]
    subprocess.run(
        [COMMAND, "local", "up", *where, "--runs", str(tmp_path / "runs")], check=True, env=clean_environment()
    )
    yield [*where, "--runs", str(tmp_path / "runs")]
    subprocess.run([COMMAND, "local", "down", *where], check=True, env=clean_environment())


def command(place: list[str], *more: str) -> list[str]:
    return [COMMAND, "probe", "--local", "--params", str(TINY), *place, *more]


def client(place: list[str], service: str) -> Any:
    url = json.loads((Path(place[1]) / "control_plane.json").read_text())["url"]
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=url, **keys)


def left(place: list[str]) -> list[str]:
    """Return everything in SageMaker and S3 whose name is a probe's, and that still runs or is billed."""
    sagemaker = client(place, "sagemaker")
    names = [item["EndpointName"] for item in sagemaker.list_endpoints()["Endpoints"]]
    names += [item["EndpointConfigName"] for item in sagemaker.list_endpoint_configs()["EndpointConfigs"]]
    names += [item["ModelName"] for item in sagemaker.list_models()["Models"]]
    for kind in ("TrainingJob", "ProcessingJob"):
        listed = getattr(sagemaker, f"list_{kind.removesuffix('Job').lower()}_jobs")()[f"{kind}Summaries"]
        names += [item[f"{kind}Name"] for item in listed if item[f"{kind}Status"] in ("InProgress", "Stopping")]
    objects = client(place, "s3").list_objects_v2(Bucket="sd-pipeline-tiny").get("Contents", [])
    return [*names, *(item["Key"] for item in objects if "sd-pipeline-probe" in item["Key"])]


def test_everything_is_measured_on_this_machine_and_nothing_stays(place: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        command(place, "--json", "--out", str(tmp_path / "probe.json")),
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "probe.json").read_text()) and result["failed"] == 0
    processing, training, endpoint = result["jobs"]
    assert (processing["kind"], training["instances"], endpoint["kind"]) == (
        "processing",
        {"ml.c5.large": 2},
        "endpoint",
    )
    assert list(training["hosts"]) == ["algo-1", "algo-2", "sagemaker"]
    checks = [line["check"] for line in training["hosts"]["algo-2"]]
    assert {"driver", "interface", "disk", "services", "names", "hosts", "gloo", "reads", "writes"} <= set(checks)
    assert "file_system" in checks and "verdict: what was probed works" in done.stderr
    assert left(place) == []


def test_an_interrupted_probe_removes_what_it_made(place: list[str]) -> None:
    with subprocess.Popen(command(place), stdout=subprocess.PIPE, text=True, env=clean_environment()) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Executing" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130, rest
    assert "removing what the probe made" in rest
    assert left(place) == []


def test_what_a_killed_probe_left_is_found_and_removed(place: list[str]) -> None:
    sagemaker, s3 = client(place, "sagemaker"), client(place, "s3")
    name = "sd-pipeline-probe-sd-pipeline-tiny-01234567-endpoint"
    other = "sd-pipeline-probe-sd-pipeline-tiny-long-01234567-endpoint"
    for own in (name, other):
        sagemaker.create_model(
            ModelName=own, ExecutionRoleArn="arn:aws:iam::123456789012:role/x", PrimaryContainer={"Image": "local/x:y"}
        )
    s3.create_bucket(Bucket="sd-pipeline-tiny")
    s3.put_object(Bucket="sd-pipeline-tiny", Key=f"shards/sd-pipeline-probe/{name}/algo-1", Body=b"left")
    from pipeline_definition.probing.jobs import base_name
    from pipeline_definition.probing.leftovers import Leftovers, ProbePatience
    from pipeline_definition.session import Target

    target = Target("us-east-1", sagemaker.meta.endpoint_url)
    leftovers = Leftovers(target, base_name("sd-pipeline-tiny"), ["s3://sd-pipeline-tiny/shards"], ProbePatience(0.1))
    assert leftovers.found() == [("delete_model", name)]
    assert leftovers.remove(print) == []
    assert left(place) == [other]
