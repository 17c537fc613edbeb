"""The switches of `local.cloud:` that change what the API answers: in front of the gateway, for all but the services.

Reads the switches and each request; writes nothing. Words and codes are AWS's own, as people report them:
https://github.com/aws/sagemaker-python-sdk/issues/4994 (a member that a definition may not have),
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html (an empty page),
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (AccessDenied).
"""

import contextlib
import fnmatch
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from werkzeug.wrappers import Response

from params.cloud import Cloud
from params.s3 import is_under
from pipeline_definition.local.answers import error_answer, json_answer
from pipeline_definition.local.errors import RefusedRequestError, invalid
from pipeline_definition.local.request_journal import Environ, key_of_request, read_body, service_of
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import ROLE_KEY, SERVICE_KEY

_TOKENS = ("nextForwardToken", "nextBackwardToken")
# Before a token of moto's: the page after an empty one.
_AFTER_EMPTY = "after-empty/"
_THROTTLED = {"sagemaker": "throttled_api", "logs": "throttled_logs"}


class HostileCloud:
    def __init__(self, gateway: Callable[[Environ], Response], services: Services) -> None:
        self._gateway, self._services = gateway, services
        self._asked: Counter[str] = Counter()
        self._answers: dict[tuple[str, str], Response] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request as the switches say, or as the gateway does."""
        try:
            answer = self._answer(environ, self._services.cloud)
        except RefusedRequestError as error:
            answer = error_answer(error, environ)
        return answer(environ, start_response)

    def _answer(self, environ: Environ, cloud: Cloud) -> Response:
        service = service_of(environ)
        if cloud == Cloud() or key_of_request(environ) == SERVICE_KEY:
            return self._gateway(environ)
        if service in ("", "s3"):
            _refuse_object(environ, cloud)
            return self._gateway(environ)
        operation, request = _operation(environ)
        action = f"{service}:{operation}"
        if any(fnmatch.fnmatchcase(action, pattern) for pattern in cloud.denied_actions):
            problem = f"User is not authorized to perform: {action} because no policy allows it"
            raise RefusedRequestError("AccessDeniedException", problem)
        self._throttle(service, action, cloud)
        if service == "sagemaker":
            _refuse_members(operation, request, cloud)
        token = str(request.get("ClientRequestToken") or request.get("ClientToken") or "")
        if operation == "SimulatePrincipalPolicy" and cloud.denied:
            return _simulated(self._gateway(environ), request, cloud)
        if operation == "GetLogEvents" and cloud.empty_log_pages:
            return self._log_page(environ, request)
        if token and cloud.tokens_honoured:
            return self._first_answer((action, token), environ)
        return self._gateway(environ)

    def _throttle(self, service: str, action: str, cloud: Cloud) -> None:
        refused = getattr(cloud, _THROTTLED.get(service, ""), 0)
        with self._lock:
            self._asked[action] += 1
            is_answered = self._asked[action] % (refused + 1) == 0
        if not is_answered:
            raise RefusedRequestError("ThrottlingException", "Rate exceeded")

    def _first_answer(self, key: tuple[str, str], environ: Environ) -> Response:
        with self._lock:
            answer = self._answers.get(key) or self._gateway(environ)
            if answer.status_code < 400:
                answer.make_sequence()
                self._answers[key] = answer
            return answer

    def _log_page(self, environ: Environ, request: dict[str, Any]) -> Response:
        """Answer every second look with an empty page; a look behind it gets the lines. The end is its token twice."""
        token = str(request.get("nextToken") or "")
        if not token.startswith(_AFTER_EMPTY):
            return json_answer({"events": [], **dict.fromkeys(_TOKENS, _AFTER_EMPTY + token)})
        own = token.removeprefix(_AFTER_EMPTY)
        body = json.dumps({**request, "nextToken": own or None}).encode()
        answer = self._gateway({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
        if answer.status_code == 200:
            page = json.loads(answer.get_data())
            page |= {name: token for name in _TOKENS if page.get(name) == own}
            answer.set_data(json.dumps(page))
        return answer


def _refuse_object(environ: Environ, cloud: Cloud) -> None:
    bucket, _, key = unquote(environ.get("PATH_INFO", "/")).lstrip("/").partition("/")
    prefix = parse_qs(environ.get("QUERY_STRING", "")).get("prefix", [""])[0]
    address = f"s3://{bucket}/{key or prefix}".rstrip("/")
    if key_of_request(environ) == ROLE_KEY and is_under(address, cloud.denied):
        raise RefusedRequestError("AccessDenied", "Access Denied", 403)


def _operation(environ: Environ) -> tuple[str, dict[str, Any]]:
    """Return the name and the members of a request, in JSON or as a form."""
    target, body = environ.get("HTTP_X_AMZ_TARGET", ""), read_body(environ)
    if target:
        return target.rsplit(".", 1)[-1], json.loads(body or b"{}")
    form = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    return form.get("Action", ""), form


def _refuse_members(operation: str, request: Mapping[str, Any], cloud: Cloud) -> None:
    text = request.get("PipelineDefinition")
    with contextlib.suppress(json.JSONDecodeError):  # what is no definition is refused behind this
        if text and (unknown := _unknown(json.loads(text), cloud)):
            raise invalid(f"Unable to parse pipeline definition. Unknown Argument member '{unknown}'")
    if unknown := _unknown(request, cloud):
        raise invalid(f"1 validation error detected: unknown member '{unknown}' in {operation}")


def _unknown(value: Any, cloud: Cloud) -> str:
    """Return a member at any depth that the API does not know; nothing where it knows all."""
    if isinstance(value, list):
        return next(filter(None, (_unknown(item, cloud) for item in value)), "")
    for name, item in value.items() if isinstance(value, dict) else ():
        if unknown := name if name in cloud.refused_members else _unknown(item, cloud):
            return str(unknown)
    return ""


def _simulated(answer: Response, request: Mapping[str, Any], cloud: Cloud) -> Response:
    """Return what IAM says of the role: a resource on which S3 denies it is not allowed."""
    resources = [value for name, value in request.items() if name.startswith("ResourceArns")]
    addresses = ["s3://" + resource.split(":::", 1)[-1].rstrip("*").rstrip("/") for resource in resources]
    if any(is_under(address, cloud.denied) for address in addresses):
        answer.set_data(answer.get_data().replace(b">allowed<", b">implicitDeny<"))
    return answer
