"""The requests that changed moto's state, to be repeated at the next start.

Reads and writes <state>/requests.jsonl. Objects in S3, logs and everything that the control plane answers itself are
kept elsewhere.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from werkzeug.test import create_environ, run_wsgi_app

from pipeline_definition.local.journal import Journal
from pipeline_definition.local.moto_patches import clock
from pipeline_definition.local.settings import HOST

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_READS = re.compile(
    r"^(Get|List|Describe|Head|Search|Query|Scan|Simulate|Assume|Invoke|Receive|Test|Preview|Validate|Filter|Select|"
    r"BatchGet|BatchDescribe|Decode|Lookup|Estimate|PutLogEvents|PutMetricData|BatchPutMetrics|PutEvents|StartQuery)"
)
_KEPT_HEADERS = ("HTTP_X_AMZ_TARGET", "CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_X_AMZ_BUCKET_OBJECT_LOCK_ENABLED")
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")
# Later requests of these operations about the same thing replace earlier ones.
_REPLACING = {"SageMaker.UpdatePipeline": "PipelineName"}


class RequestJournal:
    """The requests that moto carried out."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)

    def write(self, environ: Environ, body: bytes, time_s: float) -> None:
        """Record a request that moto has carried out."""
        headers = {name: environ[name] for name in _KEPT_HEADERS if environ.get(name)}
        headers["HTTP_AUTHORIZATION"] = _scope_only(headers.get("HTTP_AUTHORIZATION", ""))
        self._journal.append(
            {
                "time": time_s,
                "method": environ["REQUEST_METHOD"],
                "path": environ.get("PATH_INFO", "/"),
                "query": environ.get("QUERY_STRING", ""),
                "headers": headers,
                "body": base64.b64encode(body).decode(),
            }
        )

    def replay(self, app: WsgiApp) -> list[str]:
        """Repeat the requests in order; return those that fail this time."""
        entries = compacted(list(self._journal.entries()))
        self._journal.rewrite(entries)
        failed = []
        for entry in entries:
            clock.time_s = float(entry["time"])
            status = _call(app, entry)
            # A bucket exists already: its folder has brought it back.
            if status >= 400 and not _is_bucket_creation(entry):
                failed.append(f"{entry['headers'].get('HTTP_X_AMZ_TARGET', entry['path'])}: {status}")
        clock.time_s = None
        return failed


def changes_state(environ: Environ, body: bytes) -> bool:
    """Whether a request to moto must be recorded."""
    method, target = environ["REQUEST_METHOD"], environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        # A state machine is created at each start and must not repeat its executions.
        return not target.startswith("AWSStepFunctions.") and not _READS.match(target.rsplit(".", 1)[-1])
    service = service_of(environ)
    if service in ("", "s3"):
        # Objects are files already; what remains are buckets and their configuration.
        is_bucket = environ.get("PATH_INFO", "/").strip("/").count("/") == 0
        return is_bucket and method in ("PUT", "DELETE") and environ.get("PATH_INFO", "/") != "/"
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        action = parse_qs(body.decode("utf-8", "replace")).get("Action", [""])[0]
        return bool(action) and not _READS.match(action)
    return method in ("POST", "PUT", "PATCH", "DELETE") and not environ.get("PATH_INFO", "").startswith("/moto-api")


def service_of(environ: Environ) -> str:
    """Return the service that a request was signed for; empty for an unsigned one."""
    match = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    return match.group(3) if match else ""


def key_of_request(environ: Environ) -> str:
    """Return the access key that signed a request; empty for an unsigned one."""
    match = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    return match.group(1) if match else ""


def compacted(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the requests that a later one about the same thing replaces entirely."""
    keys = [_replacing_key(entry) for entry in entries]
    last: dict[tuple[str, str] | None, int] = {key: index for index, key in enumerate(keys) if key}
    return [entry for index, entry in enumerate(entries) if last.get(keys[index], index) == index]


def read_body(environ: Environ) -> bytes:
    """Return a request's body, and put it back for the next reader."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _replacing_key(entry: dict[str, Any]) -> tuple[str, str] | None:
    target = entry["headers"].get("HTTP_X_AMZ_TARGET", "")
    if target not in _REPLACING:
        return None
    match = re.search(rb'"%s":\s*"([^"]+)"' % _REPLACING[target].encode(), base64.b64decode(entry["body"]))
    return (target, match.group(1).decode()) if match else None


def _is_bucket_creation(entry: dict[str, Any]) -> bool:
    return entry["method"] == "PUT" and not entry["query"] and "HTTP_X_AMZ_TARGET" not in entry["headers"]


def _scope_only(authorization: str) -> str:
    """Keep the region and service of a signature: moto needs them, and nobody needs the rest."""
    match = _SCOPE.search(authorization)
    region, service = match.groups()[1:] if match else ("us-east-1", "s3")
    scope = f"local/20200101/{region}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


def _call(app: WsgiApp, entry: dict[str, Any]) -> int:
    body = base64.b64decode(entry["body"])
    environ: Environ = create_environ(base_url=f"http://{HOST}", method=entry["method"], data=body)
    environ |= {"PATH_INFO": entry["path"], "QUERY_STRING": entry["query"], **entry["headers"]}
    try:
        _, status, _ = run_wsgi_app(app, environ, buffered=True)
    except Exception:  # moto raises for what it has not implemented
        return 500
    return int(status.split()[0])
