import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from pipeline_definition.prompting.endpoint import (
    AsyncEndpoint,
    DrawnPicture,
    EndpointBusyError,
    PromptError,
    SageMakerEndpoint,
    ServerEndpoint,
    connect,
    draw_patiently,
)
from pipeline_definition.session import Target
from tests.pipeline_definition.fake_aws import FakeTarget
from tests.pipeline_definition.prompting.conftest import DrawingServer, grey, refusal


def test_a_server_draws_and_says_how(drawing: DrawingServer) -> None:
    answer = ServerEndpoint(drawing.url + "/").draw({"prompt": "a", "seed": 9, "num_images": 2, "steps": None})
    assert [picture.content for picture in answer.pictures] == [grey(9), grey(10)]
    assert [picture.seed for picture in answer.pictures] == [9, 10]
    assert (answer.model, answer.settings["steps"], answer.render_s) == ("grey/1", 4, 0.25)
    assert answer.elapsed_s > 0
    # What is not said is left to the endpoint's defaults.
    assert drawing.requests == [{"prompt": "a", "seed": 9, "num_images": 2}]


def test_a_refusal_says_endpoint_field_and_reason(drawing: DrawingServer) -> None:
    drawing.refusals = [refusal(422, "steps: Input should be less than or equal to 100")]
    with pytest.raises(PromptError, match=rf"endpoint {drawing.url}: steps: Input should be less"):
        ServerEndpoint(drawing.url).draw({"prompt": "a"})


@pytest.mark.parametrize("body", ["<html>", "{}", '{"images": [{}]}'])
def test_an_answer_of_something_else_is_said_to_be_that(drawing: DrawingServer, body: str) -> None:
    drawing.refusals = [(200, body)]
    with pytest.raises(PromptError, match="not what its image gives"):
        ServerEndpoint(drawing.url).draw({"prompt": "a"})


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(PromptError, match=r"endpoint http://127\.0\.0\.1:9: cannot be reached"):
        ServerEndpoint("http://127.0.0.1:9").draw({"prompt": "a"})


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_endpoint_is_asked_again_after_growing_pauses(drawing: DrawingServer, status: int) -> None:
    drawing.refusals = [refusal(status, "the queue is full")] * 3
    pauses: list[float] = []
    answer = draw_patiently(ServerEndpoint(drawing.url), {"prompt": "a"}, 60, pauses.append)
    assert (len(answer.pictures), pauses) == (1, [1.0, 2.0, 4.0])


def test_patience_ends(drawing: DrawingServer) -> None:
    drawing.refusals = [refusal(429, "the queue is full")] * 9
    pauses: list[float] = []
    with pytest.raises(EndpointBusyError, match="the queue is full"):
        draw_patiently(ServerEndpoint(drawing.url), {"prompt": "a"}, 5, pauses.append)
    assert sum(pauses) <= 5


def sagemaker(answers: Any, **config: Any) -> Target:
    arn, at = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x", datetime(2026, 1, 1, tzinfo=UTC)
    common = {"EndpointConfigName": "c", "CreationTime": at}
    endpoint = {"EndpointName": "x", "EndpointArn": arn, "EndpointStatus": "InService", "LastModifiedTime": at}
    variants = [{"VariantName": "all", "ModelName": "m"}]
    described = {
        "describe_endpoint": lambda **_: common | endpoint,
        "describe_endpoint_config": lambda **_: {
            **common,
            "EndpointConfigArn": arn,
            "ProductionVariants": variants,
            **config,
        },
    }
    return FakeTarget(answers={"sagemaker-runtime": {"invoke_endpoint": answers}, "sagemaker": described})


def test_an_endpoint_of_sagemaker_is_asked_by_name_and_variant(drawing: DrawingServer) -> None:
    asked: list[dict[str, Any]] = []

    def invoke(**parameters: Any) -> dict[str, Any]:
        asked.append(parameters)
        body = json.dumps(drawing.answer(json.loads(parameters["Body"]))).encode()
        return {"Body": StreamingBody(io.BytesIO(body), len(body)), "ContentType": "application/json"}

    answer = SageMakerEndpoint(sagemaker(invoke), "production", "generic").draw({"prompt": "a", "seed": 3})
    assert answer.pictures[0].content == grey(3)
    assert (asked[0]["EndpointName"], asked[0]["TargetVariant"]) == ("production", "generic")


def test_the_models_own_words_come_through_sagemaker() -> None:
    body = json.dumps({"error": {"status": 429, "message": "the queue is full: try again later"}})
    response: Any = {
        "Error": {"Code": "ModelError", "Message": "Received client error (429)"},
        "OriginalStatusCode": 429,
        "OriginalMessage": body,
    }

    def invoke(**_: Any) -> dict[str, Any]:
        raise ClientError(response, "InvokeEndpoint")

    with pytest.raises(EndpointBusyError, match="endpoint production: the queue is full"):
        SageMakerEndpoint(sagemaker(invoke), "production").draw({"prompt": "a"})


def test_what_sagemaker_refuses_itself_is_said() -> None:
    def invoke(**_: Any) -> dict[str, Any]:
        raise ClientError({"Error": {"Code": "ValidationError", "Message": "Endpoint x not found."}}, "InvokeEndpoint")

    with pytest.raises(PromptError, match="endpoint x: Endpoint x not found"):
        SageMakerEndpoint(sagemaker(invoke), "x").draw({"prompt": "a"})


def test_an_address_needs_no_target() -> None:
    def no_target() -> Target:
        raise AssertionError

    assert isinstance(connect(no_target, "http://127.0.0.1:8080"), ServerEndpoint)
    assert isinstance(connect(lambda: sagemaker(None), "name"), SageMakerEndpoint)


def test_the_endpoint_itself_says_of_which_kind_it_is() -> None:
    config = {"OutputConfig": {"S3OutputPath": "s3://bucket/async/name/answers"}}
    found = connect(lambda: sagemaker(None, AsyncInferenceConfig=config), "name")
    assert isinstance(found, AsyncEndpoint)
    assert found._prefix == "s3://bucket/async/name"


def test_each_prompt_that_was_cut_and_a_picture_that_was_replaced_are_told() -> None:
    whole = DrawnPicture(b"", "png", 7, None, False)
    assert whole.notes == []
    cut, negative, flagged = DrawnPicture(b"", "png", 7, True, True, negative_truncated=True).notes
    assert "the end of the prompt" in cut and "the end of the negative prompt" in negative and "black" in flagged
