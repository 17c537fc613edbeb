"""Asynchronous invocations are answered, each once, whatever dies meanwhile."""

import json
import re
from typing import Any

import pytest

from pipeline_definition.local.archive import write_archive
from tests.pipeline_definition.local.conftest import ROLE, World, until

AT_ONCE = 3
REQUESTS = 36


def create(world: World, name: str = "patient", **output: str) -> None:
    weights = world.folder / "weights.bin"
    weights.write_bytes(b"1")
    write_archive(world.folder / "model.tar.gz", {"weights.bin": weights})
    world.put("model.tar.gz", (world.folder / "model.tar.gz").read_bytes())
    container = {"Image": "test/image:1", "ModelDataUrl": "s3://bucket/model.tar.gz"}
    world.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    for config in (name, f"{name}-next"):
        world.sagemaker.create_endpoint_config(
            EndpointConfigName=config,
            ProductionVariants=[
                {"VariantName": "all", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.g5.xlarge"}
            ],
            AsyncInferenceConfig={
                "OutputConfig": {"S3OutputPath": "s3://bucket/out", **output},
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": AT_ONCE},
            },
        )
    world.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until(lambda: world.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService")


def ask(world: World, body: bytes, **how: Any) -> str:
    """Return the key of the answer to come."""
    key = f"in/{len(world.keys('in/'))}"
    world.put(key, body)
    runtime = world.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_async(EndpointName="patient", InputLocation=f"s3://bucket/{key}", **how)
    return str(answer["OutputLocation"]).removeprefix("s3://bucket/")


def test_dozens_are_answered_a_few_at_a_time_though_their_host_dies_and_is_replaced(own_world: World) -> None:
    create(own_world)
    keys = {}
    for number in range(REQUESTS):
        if number == REQUESTS // 3:
            ask(own_world, f"die once {own_world.folder / 'mark'}".encode())
        if number == 2 * REQUESTS // 3:
            own_world.sagemaker.update_endpoint(EndpointName="patient", EndpointConfigName="patient-next")
        keys[number] = ask(own_world, f"count {number}".encode())
    until(lambda: len(own_world.keys("out/")) == REQUESTS + 1, 60)
    assert not [key for key in own_world.keys("out/") if "error" in key]
    answers = {number: own_world.get(key).decode() for number, key in keys.items()}
    found = {number: re.fullmatch(rf"count {number} at_once (\d+)", text) for number, text in answers.items()}
    most = [int(match[1]) for match in found.values() if match]
    assert len(most) == REQUESTS, answers
    assert 1 < max(most) <= AT_ONCE


def test_what_waits_survives_a_killed_control_plane(own_world: World) -> None:
    create(own_world)
    keys = [ask(own_world, f"slow {number}".encode()) for number in range(REQUESTS // 2)]
    own_world.kill()
    until(lambda: not own_world.processes())
    waiting = own_world.folder / "state" / "records" / "async-invocations"
    assert list(waiting.iterdir())
    own_world.up()
    until(lambda: len(own_world.keys("out/")) == len(keys), 90)
    assert set(own_world.keys("out/")) == set(keys)
    until(lambda: not list(waiting.iterdir()))


def test_a_models_error_is_a_failure_with_its_own_words(own_world: World) -> None:
    create(own_world, S3FailurePath="s3://bucket/failed")
    bad = ask(own_world, b"bad", InferenceId="mine")
    until(lambda: own_world.keys("failed/"))
    (key,) = own_world.keys("failed/")
    assert key == bad.replace("out/", "failed/").replace(".out", "-error.out")
    assert json.loads(own_world.get(key))["OriginalMessage"] == "that is bad"
    assert not own_world.keys("out/")


def test_a_payload_that_is_not_there_is_refused(own_world: World) -> None:
    create(own_world)
    runtime = own_world.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ClientError, match="There is no object"):
        runtime.invoke_endpoint_async(EndpointName="patient", InputLocation="s3://bucket/nothing")
