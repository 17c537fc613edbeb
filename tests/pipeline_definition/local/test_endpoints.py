"""Endpoints as clients see them: real server processes behind the API."""

from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.pipeline_definition.local.conftest import ROLE, World, until

SIZE = {"InitialInstanceCount": 1, "InstanceType": "ml.g5.2xlarge"}


@pytest.fixture(scope="module")
def hosted(world: World) -> World:
    """Models: `one` and `two` answer with their names, `broken` does not start."""
    from pipeline_definition.local.archive import write_archive

    weights = world.folder / "weights.bin"
    weights.write_bytes(b"1")
    write_archive(world.folder / "model.tar.gz", {"weights.bin": weights})
    world.put("model.tar.gz", (world.folder / "model.tar.gz").read_bytes())
    for name, environment in (("one", {"WHO": "one"}), ("two", {"WHO": "two"}), ("broken", {"BROKEN": "1"})):
        container = {"Image": "test/image:1", "ModelDataUrl": "s3://bucket/model.tar.gz", "Environment": environment}
        world.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {"VariantName": name, "ModelName": name, "InitialVariantWeight": 1.0, **SIZE}
        world.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    return world


def settled(world: World, name: str) -> dict[str, Any]:
    def found() -> Any:
        endpoint = world.sagemaker.describe_endpoint(EndpointName=name)
        return endpoint if endpoint["EndpointStatus"] not in ("Creating", "Updating") else None

    answer: dict[str, Any] = until(found)
    return answer


def made(world: World, name: str, config: str) -> dict[str, Any]:
    world.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    return settled(world, name)


def ask(world: World, name: str, body: bytes = b"hello", **how: Any) -> dict[str, Any]:
    runtime = world.client("sagemaker-runtime")
    answer: dict[str, Any] = runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="text/x", **how)
    answer["Body"] = answer["Body"].read()
    return answer


def test_an_endpoint_serves_its_unpacked_model(hosted: World) -> None:
    assert made(hosted, "plain", "one")["EndpointStatus"] == "InService"
    answer = ask(hosted, "plain", b"\x00\xff")
    assert (answer["Body"], answer["ContentType"]) == (b"one weights.bin \x00\xff", "text/test")
    assert answer["InvokedProductionVariant"] == "one"


def test_the_models_own_error_reaches_the_client(hosted: World) -> None:
    made(hosted, "erring", "one")
    with pytest.raises(ClientError) as caught:
        ask(hosted, "erring", b"bad")
    response: Any = caught.value.response
    assert response["Error"]["Code"] == "ModelError"
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (400, "that is bad")


def test_an_endpoint_whose_server_ends_fails_with_its_last_lines(hosted: World) -> None:
    endpoint = made(hosted, "failing", "broken")
    assert endpoint["EndpointStatus"] == "Failed"
    assert "cannot serve this" in endpoint["FailureReason"]
    with pytest.raises(ClientError, match="not found"):
        ask(hosted, "failing")


def test_an_update_that_fails_leaves_the_old_model_in_service(hosted: World) -> None:
    made(hosted, "updated", "one")
    hosted.sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="two")
    assert settled(hosted, "updated")["EndpointConfigName"] == "two"
    assert ask(hosted, "updated")["Body"].startswith(b"two")
    hosted.sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="broken")
    endpoint = settled(hosted, "updated")
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "two")
    assert "cannot serve this" in endpoint["FailureReason"]
    assert ask(hosted, "updated")["Body"].startswith(b"two")


def test_variants_share_the_traffic_by_weight_or_are_chosen_by_name(hosted: World) -> None:
    variants = [
        {"VariantName": name, "ModelName": name, "InitialVariantWeight": weight, **SIZE}
        for name, weight in (("one", 1.0), ("two", 0.0))
    ]
    hosted.sagemaker.create_endpoint_config(EndpointConfigName="both", ProductionVariants=variants)
    made(hosted, "shared", "both")
    assert {ask(hosted, "shared")["InvokedProductionVariant"] for _ in range(6)} == {"one"}
    assert ask(hosted, "shared", TargetVariant="two")["Body"].startswith(b"two")
    with pytest.raises(ClientError, match="Variant three"):
        ask(hosted, "shared", TargetVariant="three")


def test_a_server_that_dies_is_started_again(hosted: World) -> None:
    made(hosted, "mortal", "one")
    impatient = hosted.client("sagemaker-runtime", Config(retries={"total_max_attempts": 1}))
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        impatient.invoke_endpoint(EndpointName="mortal", Body=b"die")

    def back() -> bool:
        try:
            return bool(impatient.invoke_endpoint(EndpointName="mortal", Body=b"x"))
        except ClientError:
            return False

    until(back)


def test_an_asynchronous_answer_lands_in_s3(hosted: World) -> None:
    hosted.sagemaker.create_endpoint_config(
        EndpointConfigName="async",
        ProductionVariants=[{"VariantName": "one", "ModelName": "one", **SIZE}],
        AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://bucket/answers"}},
    )
    made(hosted, "patient", "async")
    hosted.put("question", b"slowly")
    runtime = hosted.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_async(EndpointName="patient", InputLocation="s3://bucket/question")
    key = answer["OutputLocation"].removeprefix("s3://bucket/")
    until(lambda: hosted.keys(key))
    assert hosted.get(key) == b"one weights.bin slowly"


def test_a_deleted_endpoint_leaves_no_process(hosted: World) -> None:
    made(hosted, "deleted", "one")
    before = len(hosted.processes())
    hosted.sagemaker.delete_endpoint(EndpointName="deleted")
    assert len(hosted.processes()) == before - 1
    with pytest.raises(ClientError, match="Could not find endpoint"):
        hosted.sagemaker.describe_endpoint(EndpointName="deleted")


def test_an_unknown_configuration_is_refused(hosted: World) -> None:
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        hosted.sagemaker.create_endpoint(EndpointName="none", EndpointConfigName="none")
