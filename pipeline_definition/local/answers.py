"""What is sent back for a request: a document, a refusal in the words of the service that was asked, any bytes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.request_journal import Environ, service_of

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def json_answer(status: int, body: Mapping[str, Any]) -> Answer:
    """Return a document."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())}
    return status, headers, json.dumps(body).encode()


def error_answer(error: RefusedRequestError, environ: Environ | None = None) -> Answer:
    """Return a refusal as the service that was asked words it."""
    if environ is not None and service_of(environ) in ("", "s3"):
        text = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
        # A HEAD has no body: what came behind it would be taken for the next answer on the connection.
        content = b"" if environ.get("REQUEST_METHOD") == "HEAD" else text.encode()
        return error.status, {"Content-Type": "application/xml"}, content
    # Clients of two protocols read the code in two places.
    body = {"__type": error.code, "message": error.message, "Message": error.message}
    status, headers, data = json_answer(error.status, body)
    return status, {**headers, "x-amzn-ErrorType": error.code}, data


def send(start_response: Callable[..., Any], answer: Answer) -> Iterable[bytes]:
    """Send an answer."""
    status, headers, body = answer
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    own = {**headers, "Content-Length": str(len(body))}
    start_response(f"{status} {phrase}", list(own.items()))
    return [body]
