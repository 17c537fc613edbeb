"""AWS answering from memory: each request and each answer is checked against botocore's own shapes."""

# ruff: noqa: N803 (the names of the API's parameters)

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.validate import ParamValidator, validate_parameters

from pipeline_definition.session import Target

Answers = Mapping[str, Callable[..., dict[str, Any]]]


@dataclass(frozen=True)
class FakeTarget(Target):
    """A Target whose clients answer from memory; a method that is not among the answers is refused."""

    region: str = "us-east-1"
    answers: Mapping[str, Answers] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        return FakeClient(service, self.answers.get(service, {}))


class FakeClient:
    def __init__(self, service: str, answers: Answers) -> None:
        self._service, self._answers = service, answers

    def __getattr__(self, method: str) -> Callable[..., dict[str, Any]]:
        def call(**parameters: Any) -> dict[str, Any]:
            client = _real_client(self._service)
            model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
            validate_parameters(parameters, model.input_shape)
            if method not in self._answers:
                raise refused(model.name)
            answer = self._answers[method](**parameters)
            _check_answer(answer, model.output_shape)
            return answer

        return call

    def get_paginator(self, method: str) -> Any:
        """Return botocore's own paginator over this client's answers."""
        paginator = _real_client(self._service).get_paginator(method)
        paginator._method = getattr(self, method)
        return paginator


def refused(operation: str, message: str = "not authorized", code: str = "AccessDeniedException") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def fake_s3(objects: Mapping[str, bytes]) -> Answers:
    """Answers of S3 over objects by address, `s3://bucket/key`."""

    def get_object(Bucket: str, Key: str) -> dict[str, Any]:
        content = objects.get(f"s3://{Bucket}/{Key}")
        if content is None:
            missing = {"Error": {"Code": "NoSuchKey", "Message": "The specified key does not exist."}}
            raise ClientError(missing, "GetObject")
        return {"Body": StreamingBody(io.BytesIO(content), len(content)), "ContentLength": len(content)}

    def list_objects_v2(Bucket: str, Prefix: str) -> dict[str, Any]:
        keys = [uri.removeprefix(f"s3://{Bucket}/") for uri in objects if uri.startswith(f"s3://{Bucket}/{Prefix}")]
        return {"Contents": [{"Key": key} for key in sorted(keys)]}

    return {"get_object": get_object, "list_objects_v2": list_objects_v2}


@functools.cache
def _real_client(service: str) -> Any:
    session = boto3.Session(region_name="us-east-1", aws_access_key_id="local", aws_secret_access_key="local")
    return session.client(service)


def _check_answer(answer: dict[str, Any], shape: Any) -> None:
    """Names and types must be the API's; what a test leaves out, the code under test must not need."""
    if shape is None:
        assert not answer, "this operation answers nothing"
        return
    plain = {key: value for key, value in answer.items() if not isinstance(value, StreamingBody)}
    report = ParamValidator().validate(plain, shape).generate_report()
    wrong = [line for line in report.splitlines() if not line.startswith("Missing required parameter")]
    assert not wrong, wrong
