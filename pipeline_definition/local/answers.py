"""What is sent back for a request: a document, or a refusal in the words of the service that was asked."""

import json
import uuid
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.request_journal import Environ, service_of


def json_answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    own = {"x-amzn-RequestId": str(uuid.uuid4()), **(headers or {})}
    return Response(json.dumps(body), status, own, content_type="application/x-amz-json-1.1")


def error_answer(error: RefusedRequestError, environ: Environ) -> Response:
    if service_of(environ) in ("", "s3"):
        text = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
        return Response(text, error.status, content_type="application/xml")
    # Clients of two protocols read the code in two places.
    body = {"__type": error.code, "message": error.message, "Message": error.message}
    return json_answer(body, error.status, {"x-amzn-ErrorType": error.code})
