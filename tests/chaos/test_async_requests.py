"""500 asynchronous requests to the real server, which is killed three times while they wait: every one is answered."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from pipeline_definition.local.archive import write_archive
from pipeline_definition.local.client import LocalControlPlane, ensure_up
from tests.steps.serving.tiny_pipeline import write_pipeline

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

REQUESTS, AT_ONCE, KILLS = 500, 8, 3
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-inference:local"
ENVIRONMENT = {
    "SERVE_DEFAULT_SIZE_PX": "32",
    "SERVE_MAX_SIZE_PX": "32",
    "SERVE_PRECISION": "float32",
    "SERVE_THREADS": "1",
    "SERVE_SHED_LOAD": "false",
    "SERVE_TIMEOUT_S": "3600",
}


@pytest.fixture(name="plane")
def plane_fixture(tmp_path: Path) -> Iterator[LocalControlPlane]:
    plane = ensure_up(tmp_path / "state", tmp_path / "runs", leash=True)
    yield plane
    plane.close()


def test_none_of_500_requests_is_lost_with_a_killed_host(plane: LocalControlPlane, tmp_path: Path) -> None:
    new: Any = boto3.client
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    s3, sagemaker, runtime = (
        new(name, endpoint_url=plane.url, **keys) for name in ("s3", "sagemaker", "sagemaker-runtime")
    )
    model = write_pipeline(tmp_path / "model")
    files = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    write_archive(tmp_path / "model.tar.gz", files)
    s3.create_bucket(Bucket="bucket")
    s3.upload_file(str(tmp_path / "model.tar.gz"), "bucket", "model.tar.gz")
    container = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz", "Environment": ENVIRONMENT}
    role = "arn:aws:iam::123456789012:role/x"
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.c5.large"}
    output = {"S3OutputPath": "s3://bucket/out", "S3FailurePath": "s3://bucket/failed"}
    limits = {"MaxConcurrentInvocationsPerInstance": AT_ONCE}
    sagemaker.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[variant],
        AsyncInferenceConfig={"OutputConfig": output, "ClientConfig": limits},
    )
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    while (status := sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]) == "Creating":
        time.sleep(0.5)
    assert status == "InService"

    began_s, expected = time.monotonic(), {}
    for seed in range(REQUESTS):
        body = json.dumps({"prompt": "a", "seed": seed, "steps": 10})
        s3.put_object(Bucket="bucket", Key=f"in/{seed}", Body=body)
        answer = runtime.invoke_endpoint_async(
            EndpointName="e", InputLocation=f"s3://bucket/in/{seed}", Accept="application/json"
        )
        expected[answer["OutputLocation"].removeprefix("s3://bucket/")] = seed
    kills = 0
    while answered(s3, "out/") + answered(s3, "failed/") < REQUESTS:
        if kills < KILLS and answered(s3, "out/") >= (kills + 1) * REQUESTS // (KILLS + 1):
            server(plane).kill()
            kills += 1
        time.sleep(0.5)
    print(f"\n{answered(s3, 'out/')} answered, {answered(s3, 'failed/')} failed, {kills} hosts killed,", end=" ")
    print(f"{time.monotonic() - began_s:.0f} s")
    assert (answered(s3, "out/"), answered(s3, "failed/"), kills) == (REQUESTS, 0, KILLS)
    for key, seed in expected.items():
        drawn = json.loads(s3.get_object(Bucket="bucket", Key=key)["Body"].read())
        assert drawn["images"][0]["seed"] == seed


def answered(s3: Any, prefix: str) -> int:
    return int(s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("KeyCount", 0))


def server(plane: LocalControlPlane) -> psutil.Process:
    """Return the process that draws: the one of its kind that has no children."""
    assert plane.process is not None
    family = psutil.Process(plane.process.pid).children(recursive=True)
    return next(one for one in family if one.cmdline()[-1:] == ["serve"] and not one.children())
