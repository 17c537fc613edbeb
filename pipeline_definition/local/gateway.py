"""The control plane's front door: each request to the operation that answers it, here or in moto."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline_definition.local.answers import Answer, error_answer, json_answer, send
from pipeline_definition.local.async_inference import AsyncInference
from pipeline_definition.local.errors import RefusedRequestError, StepFailureError, invalid
from pipeline_definition.local.hosting import Hosting
from pipeline_definition.local.moto_patches import clock
from pipeline_definition.local.operations import NotOursError, Operation
from pipeline_definition.local.request_journal import (
    Environ,
    RequestJournal,
    WsgiApp,
    changes_state,
    read_body,
    service_of,
)
from pipeline_definition.local.settings import HEALTH_PATH, HOST

_INVOCATION = re.compile(r"^/endpoints/([^/]+)/(async-)?invocations$")
_FORWARDED = {
    "CONTENT_TYPE": "Content-Type",
    "HTTP_ACCEPT": "Accept",
    "HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES": "X-Amzn-SageMaker-Custom-Attributes",
    "HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID": "X-Amzn-SageMaker-Inference-Id",
    "HTTP_X_AMZN_SAGEMAKER_SESSION_ID": "X-Amzn-SageMaker-Session-Id",
}
_ASYNC_FORWARDED = {
    "HTTP_X_AMZN_SAGEMAKER_CONTENT_TYPE": "Content-Type",
    "HTTP_X_AMZN_SAGEMAKER_ACCEPT": "Accept",
}
_TARGET_VARIANT = "HTTP_X_AMZN_SAGEMAKER_TARGET_VARIANT"
_HOSTS = (HOST, "localhost", "[::1]")
_log = logging.getLogger(__name__)


class Gateway:
    """A WSGI application."""

    def __init__(
        self,
        moto: WsgiApp,
        journal: RequestJournal,
        hosting: Hosting,
        async_inference: AsyncInference,
        operations: Mapping[str, Operation],
        checks: Mapping[str, Callable[[Mapping[str, Any]], None]],
        health: Mapping[str, Any],
    ) -> None:
        self._moto, self._journal, self._hosting = moto, journal, hosting
        self._async_inference = async_inference
        self._operations, self._checks, self._health = operations, checks, health
        self._changing = threading.Lock()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        path, target = environ.get("PATH_INFO", "/"), environ.get("HTTP_X_AMZ_TARGET", "")
        try:
            _refuse_browsers(environ)
            if path == HEALTH_PATH:
                return send(start_response, json_answer(200, self._health))
            invocation = _INVOCATION.match(path)
            if invocation and service_of(environ) == "sagemaker":
                return send(start_response, self._invoke(invocation, environ))
            if target in self._operations:
                return send(start_response, self._operate(target, environ))
        except RefusedRequestError as error:
            return send(start_response, error_answer(error))
        except NotOursError:
            pass
        return self._forward(environ, start_response)

    def _operate(self, target: str, environ: Environ) -> Answer:
        request = json.loads(read_body(environ) or b"{}")
        try:
            return json_answer(200, self._operations[target](request))
        except KeyError as error:
            raise invalid(f"{target}: {error} is missing") from None
        except StepFailureError as error:
            raise invalid(error.reason) from None
        except (RefusedRequestError, NotOursError):
            raise
        except Exception as error:
            _log.exception("%s", target)
            raise RefusedRequestError("InternalFailure", f"{type(error).__name__}: {error}", 500) from error

    def _invoke(self, match: re.Match[str], environ: Environ) -> Answer:
        headers = {name: environ[key] for key, name in _FORWARDED.items() if environ.get(key)}
        if match.group(2):
            headers |= {name: environ[key] for key, name in _ASYNC_FORWARDED.items() if environ.get(key)}
            location = environ.get("HTTP_X_AMZN_SAGEMAKER_INPUTLOCATION", "")
            inference_id = environ.get("HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID")
            return self._async_inference.invoke(match.group(1), location, headers, inference_id)
        return self._hosting.invoke(match.group(1), read_body(environ), headers, environ.get(_TARGET_VARIANT))

    def _forward(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Let moto answer; record the request if it changed something."""
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        service = service_of(environ)
        if service in ("", "s3") and environ.get("PATH_INFO", "/").strip("/").count("/") > 0:
            return self._ask_moto(environ, start_response)
        body = read_body(environ)
        if not changes_state(environ, body):
            return self._ask_moto(environ, start_response)
        try:
            if target in self._checks:
                self._checks[target](json.loads(body))
        except RefusedRequestError as error:
            return send(start_response, error_answer(error))
        except StepFailureError as error:
            return send(start_response, error_answer(invalid(error.reason)))
        with self._changing:
            return self._ask_and_note(environ, body, start_response)

    def _ask_and_note(self, environ: Environ, body: bytes, start_response: Callable[..., Any]) -> Iterable[bytes]:
        statuses: list[str] = []

        def noting(status: str, headers: Any, exc_info: Any = None) -> Any:
            statuses.append(status)
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        # One time for both, so that a replay restores the same creation time.
        clock.time_s = time_s = time.time()
        try:
            answer = list(self._ask_moto(environ, noting))
        finally:
            clock.time_s = None
        if statuses and int(statuses[0].split()[0]) < 400:
            self._journal.write(environ, body, time_s)
        return answer

    def _ask_moto(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return self._moto(environ, start_response)
        except NotImplementedError as error:
            failure = RefusedRequestError("UnknownOperationException", f"{error}")
        except Exception as error:
            _log.exception("%s %s", environ["REQUEST_METHOD"], environ.get("PATH_INFO"))
            failure = RefusedRequestError("InternalFailure", f"{type(error).__name__}: {error}", 500)
        return send(start_response, error_answer(failure, environ))


def _refuse_browsers(environ: Environ) -> None:
    """Refuse requests of web pages, which could run programs here; no SDK sends an Origin or another host.

    Raises RefusedRequestError (403).
    """
    host = environ.get("HTTP_HOST", "").rsplit(":", 1)[0]
    if environ.get("HTTP_ORIGIN") or host not in _HOSTS:
        raise RefusedRequestError(
            "AccessDeniedException", "The local control plane answers programs on this machine only", 403
        )
