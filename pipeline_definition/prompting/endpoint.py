"""An endpoint that draws: one in SageMaker (or the local control plane) by name, or a bare server by its address.

Reads InvokeEndpoint's answer, or that of POST <address>/invocations; writes nothing. A request to an asynchronous
endpoint is an object in S3, <prefix>/requests/<id>.json, and so is the answer.

    sd-pipeline prompt "a small red circle at the top on a blue background" --local
    sd-pipeline prompt "a small red circle at the top on a blue background" --endpoint http://127.0.0.1:8080
"""

import base64
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from botocore.exceptions import ClientError

from params.s3 import error_code, is_missing, split_uri
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

JSON: Final = "application/json"
# SageMaker itself gives up at 60 s.
TIMEOUT_S: Final = 70.0
# A host that has to start first, with a model to load, takes some ten minutes.
ASYNC_TIMEOUT_S: Final = 1200.0
# An hour is SageMaker's limit; where nothing is said, it waits for a quarter of one.
ASKED: Final = {"ContentType": JSON, "Accept": JSON, "InvocationTimeoutSeconds": 3600}
POLL_S: Final = 1.0
# The failure object holds the model's words; its status does not come along.
MODEL_FAILED: Final = 500
BUSY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
FIRST_PAUSE_S: Final = 1.0
LAST_PAUSE_S: Final = 10.0
_ABOUT_PICTURE: Final = ("format", "seed", "flagged", "truncated")


class PromptError(OperatorError):
    """The endpoint did not answer with a picture: the message says what it answered."""


class EndpointBusyError(PromptError):
    """The endpoint takes no more requests for now."""


@dataclass(frozen=True)
class DrawnPicture:
    content: bytes
    form: str
    """png, jpeg or webp."""
    seed: int
    """Asked for again with the same settings, it gives the same picture."""
    flagged: bool | None
    """The safety checker replaced it with a black one; None: nothing checked it."""
    truncated: bool
    """The model did not read the end of the prompt."""
    negative_truncated: bool = False
    """Nor that of the negative prompt; endpoints of before this was told say nothing of it."""

    @property
    def notes(self) -> list[str]:
        cut = {"prompt": self.truncated, "negative prompt": self.negative_truncated}
        notes = [f"the model did not read the end of the {what}" for what, is_cut in cut.items() if is_cut]
        return [*notes, "the safety checker replaced it with a black one"] if self.flagged else notes


@dataclass(frozen=True)
class Answer:
    """What an endpoint drew for one request."""

    pictures: tuple[DrawnPicture, ...]
    model: str
    """The model package's ARN, or a digest of the model folder."""
    settings: Mapping[str, Any]
    """Steps, guidance scale, width, height and sampler, the endpoint's defaults filled in."""
    render_s: float
    """Seconds from the model's begin to the last picture."""
    elapsed_s: float
    """Seconds that the caller waited."""


class Endpoint(Protocol):
    name: str

    def draw(self, request: Mapping[str, Any]) -> Answer:
        """Draw the pictures of one request (see `steps.serving.schema`; None is left out).

        Raises EndpointBusyError for a full queue and PromptError, which names endpoint and reason, otherwise.
        """


class SageMakerEndpoint:
    """An endpoint behind InvokeEndpoint, in AWS or in the local control plane; optionally one of its variants."""

    def __init__(self, target: Target, name: str, variant: str | None = None) -> None:
        self.name = f"{name}/{variant}" if variant else name
        self._endpoint = {"EndpointName": name} | ({"TargetVariant": variant} if variant else {})
        self._client = target.client("sagemaker-runtime")

    def draw(self, request: Mapping[str, Any]) -> Answer:
        started_s = time.monotonic()
        question = {**self._endpoint, "ContentType": JSON, "Accept": JSON, "Body": body_of(request)}
        try:
            response = self._client.invoke_endpoint(**question)
        except ClientError as error:
            answer: Any = error.response
            if "OriginalMessage" in answer:
                raise refusal(self.name, int(answer["OriginalStatusCode"]), answer["OriginalMessage"]) from None
            raise PromptError(f"endpoint {self.name}: {answer['Error']['Message']}") from None
        return answer_of(response["Body"].read(), time.monotonic() - started_s)


class AsyncEndpoint:
    """An endpoint behind InvokeEndpointAsync, in AWS or in the local control plane."""

    def __init__(self, target: Target, name: str, prefix: str) -> None:
        """`prefix` is the s3:// folder of requests, such as s3://bucket/async/NAME."""
        self.name, self._prefix = name, prefix.rstrip("/")
        self._s3, self._runtime = target.client("s3"), target.client("sagemaker-runtime")

    def draw(self, request: Mapping[str, Any], sleep: Callable[[float], None] = time.sleep) -> Answer:
        """Draw the pictures of one request, however long the endpoint takes up to the time limit."""
        started_s = time.monotonic()
        location = f"{self._prefix}/requests/{uuid.uuid4().hex}.json"
        try:
            self._s3.put_object(**_place(location), Body=body_of(request), ContentType=JSON)
            accepted = self._runtime.invoke_endpoint_async(EndpointName=self.name, InputLocation=location, **ASKED)
        except ClientError as error:
            raise PromptError(f"endpoint {self.name}: {error.response['Error']['Message']}") from None
        while time.monotonic() - started_s < ASYNC_TIMEOUT_S:
            content = self._object(accepted["OutputLocation"])
            if content is not None:
                return answer_of(content, time.monotonic() - started_s)
            failure = self._object(accepted.get("FailureLocation", ""))
            if failure is not None:
                raise refusal(self.name, MODEL_FAILED, failure.decode("utf-8", "replace"))
            sleep(POLL_S)
        raise PromptError(f"endpoint {self.name}: no answer within {ASYNC_TIMEOUT_S:g} s; it may still come")

    def _object(self, uri: str) -> bytes | None:
        """Return an object; None while it is not there (without ListBucket, S3 says AccessDenied for that)."""
        if not uri:
            return None
        try:
            content: bytes = self._s3.get_object(**_place(uri))["Body"].read()
        except ClientError as error:
            if not is_missing(error) and error_code(error) != "AccessDenied":
                raise
            return None
        return content


class ServerEndpoint:
    """A server of the inference image at an address, such as http://127.0.0.1:8080."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")

    def draw(self, request: Mapping[str, Any]) -> Answer:
        started_s = time.monotonic()
        headers = {"Content-Type": JSON, "Accept": JSON}
        question = urllib.request.Request(f"{self.name}/invocations", body_of(request), headers)
        try:
            with urllib.request.urlopen(question, timeout=TIMEOUT_S) as response:
                return answer_of(response.read(), time.monotonic() - started_s)
        except urllib.error.HTTPError as error:
            raise refusal(self.name, error.code, error.read().decode("utf-8", "replace")) from None
        except OSError as error:
            raise PromptError(f"endpoint {self.name}: cannot be reached: {getattr(error, 'reason', error)}") from None


def is_address(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def connect(target: Callable[[], Target], name: str, variant: str | None = None) -> Endpoint:
    """Return the endpoint of a name, of the kind that its configuration says, or of an http:// or https:// address."""
    if is_address(name):
        return ServerEndpoint(name)
    world = target()
    config = configuration_of(world, name)
    if "AsyncInferenceConfig" not in config:
        return SageMakerEndpoint(world, name, variant)
    answers = config["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"]
    return AsyncEndpoint(world, name, answers.rstrip("/").removesuffix("/answers"))


def configuration_of(target: Target, name: str) -> Mapping[str, Any]:
    """Return the configuration of an endpoint, as SageMaker describes it. Raises PromptError."""
    sagemaker = target.client("sagemaker")
    try:
        config = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
        described: Mapping[str, Any] = sagemaker.describe_endpoint_config(EndpointConfigName=config)
    except ClientError as error:
        raise PromptError(f"endpoint {name}: {error.response['Error']['Message']}") from None
    return described


def draw_patiently(
    endpoint: Endpoint, request: Mapping[str, Any], patience_s: float, sleep: Callable[[float], None] = time.sleep
) -> Answer:
    """Draw; while the endpoint says that it is busy, wait and try again, for `patience_s` in all."""
    pause_s, waited_s = FIRST_PAUSE_S, 0.0
    while True:
        try:
            return endpoint.draw(request)
        except EndpointBusyError:
            if waited_s + pause_s > patience_s:
                raise
        sleep(pause_s)
        waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, LAST_PAUSE_S)


def body_of(request: Mapping[str, Any]) -> bytes:
    """Return a request's body: what is None is left to the endpoint's defaults."""
    return json.dumps({name: value for name, value in request.items() if value is not None}).encode()


def answer_of(content: bytes, elapsed_s: float) -> Answer:
    """Read an endpoint's JSON. Raises PromptError where it is not of this kind of endpoint."""
    try:
        answer, pictures = json.loads(content), []
        for item in answer["images"]:
            form, seed, flagged, truncated = (item[name] for name in _ABOUT_PICTURE)
            both = truncated, bool(item.get("negative_truncated"))
            pictures.append(DrawnPicture(base64.b64decode(item["image"]), form, seed, flagged, *both))
        model, settings, render_s = (answer[name] for name in ("model", "settings", "render_s"))
        return Answer(tuple(pictures), model, settings, render_s, round(elapsed_s, 4))
    except (ValueError, KeyError, TypeError) as error:
        raise PromptError(f"the endpoint's answer is not what its image gives: {error!r}; is it another one?") from None


def refusal(name: str, status: int, text: str) -> PromptError:
    """Return the error for an answer such as {"error": {"status": 422, "message": "steps: ..."}}."""
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = text.strip()[:300] or f"status {status}"
    kind = EndpointBusyError if status in BUSY else PromptError
    return kind(f"endpoint {name}: {message}")


def _place(uri: str) -> dict[str, str]:
    bucket, key = split_uri(uri, PromptError)
    return {"Bucket": bucket, "Key": key}
