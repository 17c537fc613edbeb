"""An asynchronous endpoint: the request is an object in S3, and so is the answer.

Writes <prefix>/requests/<id>.json, reads what InvokeEndpointAsync says that the answer or the failure will be.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from params.s3 import error_code, is_missing, split_uri
from pipeline_definition.prompting.endpoint import JSON, Answer, PromptError, answer_of, body_of, refusal
from pipeline_definition.session import Target

# A host that has to start first, with a model to load, takes some ten minutes.
TIMEOUT_S: Final = 1200.0
POLL_S: Final = 1.0
# The failure object holds the model's words; its status does not come along.
MODEL_FAILED: Final = 500


class AsyncEndpoint:
    """An endpoint behind InvokeEndpointAsync, in AWS or in the local control plane."""

    def __init__(
        self, target: Target, name: str, prefix: str, poll_s: float = POLL_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`prefix` is the s3:// folder of requests, such as s3://bucket/async/NAME."""
        self.name = name
        self._prefix, self._poll_s, self._timeout_s = prefix.rstrip("/"), poll_s, timeout_s
        self._s3, self._runtime = target.client("s3"), target.client("sagemaker-runtime")

    def draw(self, request: Mapping[str, Any], sleep: Callable[[float], None] = time.sleep) -> Answer:
        """Draw the pictures of one request, however long the endpoint takes up to the time limit."""
        started_s = time.monotonic()
        location = f"{self._prefix}/requests/{uuid.uuid4().hex}.json"
        try:
            self._s3.put_object(**_place(location), Body=body_of(request), ContentType=JSON)
            accepted = self._runtime.invoke_endpoint_async(
                EndpointName=self.name, ContentType=JSON, Accept=JSON, InputLocation=location
            )
        except ClientError as error:
            raise PromptError(f"endpoint {self.name}: {error.response['Error']['Message']}") from None
        while time.monotonic() - started_s < self._timeout_s:
            content = self._object(accepted["OutputLocation"])
            if content is not None:
                return answer_of(content, time.monotonic() - started_s)
            failure = self._object(accepted.get("FailureLocation", ""))
            if failure is not None:
                raise refusal(self.name, MODEL_FAILED, failure.decode("utf-8", "replace"))
            sleep(self._poll_s)
        raise PromptError(f"endpoint {self.name}: no answer within {self._timeout_s:g} s; it may still come")

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


def _place(uri: str) -> dict[str, str]:
    bucket, key = split_uri(uri, PromptError)
    return {"Bucket": bucket, "Key": key}
