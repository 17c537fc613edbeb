"""The endpoint's answers other than pictures: always JSON, always with a reason.

Every error is `{"error": {"status": 422, "message": "...", "fields": [{"field": "steps", "message": "..."}]},
"request_id": "..."}`, with `retry_after_s` in it where the request may come again.
They never repeat values of the request: error bodies end up in logs, and prompts must not.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

# Most fields that one answer names.
MAX_FINDINGS: Final = 20
# What a client is told while the model loads or the server goes down: about a health check's rhythm.
RETRY_AFTER_S: Final = 5


class ApiError(Exception):
    """A request that is answered with an error status."""

    retry_after_s: int | None = None

    def __init__(
        self,
        status: int,
        message: str,
        fields: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.fields = status, message, fields
        self.headers = dict(headers or {})

    def body(self, request_id: str = "") -> dict[str, Any]:
        """Return the JSON body: ErrorAnswer in openapi.yaml."""
        about = {"fields": self.fields, "retry_after_s": self.retry_after_s}
        error = {"status": self.status, "message": self.message} | {name: it for name, it in about.items() if it}
        return {"error": error, "request_id": request_id}


class ClientGoneError(Exception):
    """The client closed its connection before the answer."""


class BusyError(ApiError):
    """A request that may come again after `retry_after_s`."""

    def __init__(self, status: int, message: str, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(status, message, headers={"Retry-After": str(retry_after_s)})
        self.retry_after_s = retry_after_s


class QueueFullError(BusyError):
    """The queue takes no more."""

    def __init__(self, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(429, "the queue is full: try again later", retry_after_s)


class ClosedError(BusyError):
    """The queue is closed."""

    def __init__(self) -> None:
        super().__init__(503, "the server is going down")


class RenderError(ApiError):
    """The model could not draw this picture."""

    def __init__(self, message: str) -> None:
        super().__init__(500, message)


class AbandonedError(Exception):
    """No client waits for this batch any more."""


def invalid_field(field: str, message: str) -> ApiError:
    return ApiError(422, f"{field}: {message}", [{"field": field, "message": message}])


def invalid_request(error: ValidationError, known: Collection[str] = ()) -> ApiError:
    """Return 400 for what is not JSON, else 422 with each field; an unknown one with the nearest that is `known`."""
    findings = error.errors(include_url=False, include_input=False)
    if findings[0]["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {findings[0]['ctx']['error']}")
    fields = []
    for finding in findings[:MAX_FINDINGS]:
        path = ".".join(str(part) for part in finding["loc"])
        field, message = str(path or finding.get("ctx", {}).get("field", "body")), finding["msg"]
        if finding["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field.lower(), known, n=1)
            message = f"unknown field; did you mean {near[0]!r}?" if near else "unknown field"
            message = "it was said by another name, too" if field in known else message
        fields.append({"field": field, "message": message})
    return ApiError(422, "; ".join(f"{field['field']}: {field['message']}" for field in fields), fields)
