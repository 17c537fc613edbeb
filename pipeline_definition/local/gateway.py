"""The control plane's front door: each request to the operation that answers it, here or in moto."""

import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.datastructures import EnvironHeaders
from werkzeug.wrappers import Response

from pipeline_definition.local.answers import error_answer, json_answer
from pipeline_definition.local.errors import NotOursError, RefusedRequestError, as_refusal, invalid
from pipeline_definition.local.hosting import Hosting
from pipeline_definition.local.records import Operation
from pipeline_definition.local.request_checks import refuse_invalid
from pipeline_definition.local.request_journal import (
    Environ,
    RequestJournal,
    WsgiApp,
    changes_state,
    read_body,
    service_of,
)
from pipeline_definition.local.settings import HEALTH_PATH, HOST

_INVOCATION = re.compile(r"^/endpoints/([^/]+)/(async-)?invocations(-response-stream)?$")
_OWN = "X-Amzn-SageMaker-"
_FORWARDED = ("Content-Type", "Accept", *(_OWN + name for name in ("Custom-Attributes", "Inference-Id", "Session-Id")))
_ASKED = ("Content-Type", "Accept", "Inference-Id", "InputLocation", "RequestTTLSeconds", "InvocationTimeoutSeconds")
_HOSTS = (HOST, "localhost", "[::1]")
_STARTS = tuple(f"SageMaker.{verb}PipelineExecution" for verb in ("Start", "Retry"))
_log = logging.getLogger(__name__)


class Gateway:
    is_ending = False
    """Whether the control plane ends, and begins nothing new."""

    def __init__(
        self,
        moto: WsgiApp,
        journal: RequestJournal,
        hosting: Hosting,
        operations: Mapping[str, Operation],
        health: Mapping[str, Any],
    ) -> None:
        self._moto, self._journal, self._hosting = moto, journal, hosting
        self._operations, self._health = operations, health
        self._changing = threading.Lock()

    def answer(self, environ: Environ) -> Response:
        """Return the answer to one request; whatever goes wrong is an answer, too."""
        try:
            return self._answer(environ)
        except Exception as error:
            refusal, asked = as_refusal(error), environ.get("HTTP_X_AMZ_TARGET", environ["PATH_INFO"])
            if refusal.status == 500:
                _log.exception("%s %s", environ["REQUEST_METHOD"], asked)
            return error_answer(refusal, environ)

    def _answer(self, environ: Environ) -> Response:
        path, target = environ.get("PATH_INFO", "/"), environ.get("HTTP_X_AMZ_TARGET", "")
        _refuse_browsers(environ)
        if self.is_ending and (path == HEALTH_PATH or target in _STARTS):
            raise RefusedRequestError("ServiceUnavailable", "The local control plane is ending", 503)
        _refuse_schedules(environ, target)
        _refuse_expired(environ)
        if path == HEALTH_PATH:
            return json_answer(self._health)
        invocation = _INVOCATION.match(path)
        if invocation and service_of(environ) == "sagemaker":
            if invocation[3]:
                self._hosting.find(invocation[1])
                raise invalid("InvokeEndpointWithResponseStream is not supported on this machine")
            return self._invoke(invocation[1], bool(invocation[2]), environ)
        try:
            is_ours = target in self._operations or target.startswith("SageMaker.")
            return self._operate(target, environ) if is_ours else self._forward(environ)
        except NotOursError:
            return self._forward(environ)

    def _operate(self, target: str, environ: Environ) -> Response:
        try:
            request = json.loads(read_body(environ) or b"{}")
        except ValueError as error:
            raise RefusedRequestError("SerializationException", f"the request is not JSON: {error}") from None
        if not isinstance(request, dict):
            raise RefusedRequestError("SerializationException", f"a request is an object, not {request!r:.80}")
        service, _, operation = target.partition(".")
        if service == "SageMaker":  # others answer for themselves
            if target not in self._operations:
                problem = f"{operation} is not supported on this machine"
                raise RefusedRequestError("UnknownOperationException", problem)
            refuse_invalid(operation, request)
        try:
            return json_answer(self._operations[target](request))
        except KeyError as error:
            raise invalid(f"{target}: {error} is missing") from None

    def _invoke(self, endpoint: str, is_asynchronous: bool, environ: Environ) -> Response:
        given = EnvironHeaders(environ)
        headers = {name: given[name] for name in _FORWARDED if given.get(name)}
        if not is_asynchronous:
            return self._hosting.invoke(endpoint, read_body(environ), headers, given.get(f"{_OWN}Target-Variant"))
        asked = {name: given[_OWN + name] for name in _ASKED if given.get(_OWN + name)}
        headers = {name: text for name, text in headers.items() if name.startswith(_OWN)}
        headers |= {name: asked[name] for name in ("Content-Type", "Accept") if name in asked}
        return self._hosting.invoke_async(endpoint, asked, headers)

    def _forward(self, environ: Environ) -> Response:
        """Let moto answer; record the request if it changed something."""
        is_object = service_of(environ) in ("", "s3") and environ.get("PATH_INFO", "/").strip("/").count("/") > 0
        body = b"" if is_object else read_body(environ)
        if is_object or not changes_state(environ, body):
            return Response.from_app(self._moto, environ)
        with self._changing:
            answer = Response.from_app(self._moto, environ, buffered=True)
            if answer.status_code < 400:
                self._journal.write(environ, body, time.time())
        return answer


def _refuse_schedules(environ: Environ, target: str) -> None:
    """Refuse what moto would keep, and nothing would ever come of."""
    is_rule = target == "AWSEvents.PutRule" and b"ScheduleExpression" in read_body(environ)
    if is_rule or (service_of(environ) == "scheduler" and environ["REQUEST_METHOD"] in ("POST", "PUT")):
        raise invalid("Schedules are not supported on this machine")


def _refuse_expired(environ: Environ) -> None:
    """Refuse a presigned address once its time has passed; moto looks at neither form of it."""
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    try:
        until_s = float(query.get("Expires", "inf"))
        if "X-Amz-Expires" in query:
            signed = datetime.strptime(query["X-Amz-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
            until_s = signed.timestamp() + float(query["X-Amz-Expires"])
    except (KeyError, ValueError) as error:
        raise RefusedRequestError("AccessDenied", f"The address is not signed as one: {error}", 403) from None
    if time.time() > until_s:
        raise RefusedRequestError("AccessDenied", "Request has expired", 403)


def _refuse_browsers(environ: Environ) -> None:
    """Refuse web pages, which could run programs here: no SDK sends an Origin or another host."""
    host = environ.get("HTTP_HOST", "").rsplit(":", 1)[0]
    if environ.get("HTTP_ORIGIN") or host not in _HOSTS:
        problem = "The local control plane answers programs on this machine only"
        raise RefusedRequestError("AccessDeniedException", problem, 403)
