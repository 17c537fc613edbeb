"""The requests that changed moto's state, so that they can be made again at the next start.

Reads and writes <state>/requests.jsonl. Objects in S3, logs and everything that the control plane answers itself have
their own places and are not here.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from pipeline_definition.local.journal import Journal
from pipeline_definition.local.moto_patches import clock

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_READS = re.compile(
    r"^(Get|List|Describe|Head|Search|Query|Scan|Simulate|Assume|Invoke|Receive|Test|Preview|Validate|Filter|Select|"
    r"BatchGet|BatchDescribe|Decode|Lookup|Estimate|PutLogEvents|PutMetricData|BatchPutMetrics|PutEvents|StartQuery)"
)
_KEPT_HEADERS = ("HTTP_X_AMZ_TARGET", "CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_X_AMZ_BUCKET_OBJECT_LOCK_ENABLED")
_SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/")
# Later requests of these operations about the same thing replace earlier ones.
_REPLACING = {"SageMaker.UpdatePipeline": "PipelineName"}


class RequestJournal:
    """What was asked of moto."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)

    def write(self, environ: Environ, body: bytes, time_s: float) -> None:
        """Note a request that moto has carried out."""
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
        """Make the requests again, in order; return those that failed this time."""
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
    """Whether a request to moto must be noted."""
    method, target = environ["REQUEST_METHOD"], environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        # A state machine is made anew at each start, and must not run again what it has done.
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
    return match.group(2) if match else ""


def compacted(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what a later request about the same thing replaces entirely."""
    last: dict[tuple[str, str] | None, int] = {}
    keys = [_replacing_key(entry) for entry in entries]
    for index, key in enumerate(keys):
        if key:
            last[key] = index
    return [
        entry for index, (entry, key) in enumerate(zip(entries, keys, strict=True)) if last.get(key, index) == index
    ]


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
    region, service = match.groups() if match else ("us-east-1", "s3")
    scope = f"local/20200101/{region}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


def _call(app: WsgiApp, entry: dict[str, Any]) -> int:
    body = base64.b64decode(entry["body"])
    environ: Environ = {
        "REQUEST_METHOD": entry["method"],
        "PATH_INFO": entry["path"],
        "QUERY_STRING": entry["query"],
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **entry["headers"],
    }
    statuses: list[int] = []
    try:
        answer = app(environ, lambda status, headers, exc_info=None: statuses.append(int(status.split()[0])))
        for _ in answer:
            pass
    except Exception:  # moto raises for what it has not implemented
        return 500
    return statuses[0] if statuses else 500
