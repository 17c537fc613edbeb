import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline_definition.prompting.endpoint import AsyncEndpoint, PromptError
from tests.pipeline_definition.fake_aws import FakeTarget, fake_s3
from tests.pipeline_definition.prompting.conftest import DrawingServer, grey


class Account:
    """S3 and an endpoint whose answers come after some questions for them."""

    def __init__(self, respond: Callable[[dict[str, Any]], bytes], place: str, polls: int) -> None:
        self.objects: dict[str, bytes] = {}
        self.naps: list[float] = []
        self._respond, self._place, self._polls = respond, place, polls
        self._due: tuple[str, bytes] | None = None
        answers = {
            "s3": {**fake_s3(self.objects), "put_object": self._put},
            "sagemaker-runtime": {"invoke_endpoint_async": self._invoke},
        }
        self.endpoint = AsyncEndpoint(FakeTarget(answers=answers), "patient", "s3://bucket/async/patient")

    def _put(self, Bucket: str, Key: str, Body: bytes, **_: Any) -> dict[str, Any]:  # noqa: N803
        self.objects[f"s3://{Bucket}/{Key}"] = Body
        return {}

    def _invoke(self, **asked: Any) -> dict[str, Any]:
        request = json.loads(self.objects[asked["InputLocation"]])
        self._due = (f"s3://bucket/{self._place}/1.out", self._respond(request))
        return {"OutputLocation": "s3://bucket/answers/1.out", "FailureLocation": "s3://bucket/failures/1.out"}

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        if len(self.naps) == self._polls and self._due is not None:
            self.objects[self._due[0]] = self._due[1]


def test_the_answer_is_waited_for_in_s3(drawing: DrawingServer) -> None:
    account = Account(lambda request: json.dumps(drawing.answer(request)).encode(), "answers", polls=3)
    answer = account.endpoint.draw({"prompt": "a", "seed": 5}, account.sleep)
    assert answer.pictures[0].content == grey(5)
    assert len(account.naps) == 3
    (asked,) = [json.loads(body) for uri, body in account.objects.items() if "/async/patient/requests/" in uri]
    assert asked == {"prompt": "a", "seed": 5}


def test_a_failure_is_the_models_own_words() -> None:
    error = {"error": {"status": 422, "message": "steps: at most 10"}}
    account = Account(lambda _: json.dumps(error).encode(), "failures", polls=1)
    with pytest.raises(PromptError, match="endpoint patient: steps: at most 10"):
        account.endpoint.draw({"prompt": "a"}, account.sleep)
