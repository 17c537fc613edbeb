"""The requests that changed moto's state, to be repeated at the next start.

Reads and writes <state>/requests.jsonl. S3's objects, logs and what the control plane answers itself are elsewhere.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from werkzeug.test import create_environ, run_wsgi_app

from pipeline_definition.local.journal import Journal
from pipeline_definition.local.records import Operation, clock
from pipeline_definition.local.settings import HOST

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_READS = re.compile(
    r"^(Get|List|Describe|Head|Search|Query|Scan|Simulate|Assume|Invoke|Receive|Test|Preview|Validate|Filter|Select|"
    r"BatchGet|BatchDescribe|Decode|Lookup|Estimate|PutLogEvents|PutMetricData|BatchPutMetrics|PutEvents|StartQuery)"
)
_KEPT_HEADERS = ("HTTP_X_AMZ_TARGET", "CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_X_AMZ_BUCKET_OBJECT_LOCK_ENABLED")
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")


class RequestJournal:
    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)

    def write(self, environ: Environ, body: bytes, time_s: float) -> None:
        headers = {name: environ[name] for name in _KEPT_HEADERS if environ.get(name)}
        # Of a signature, moto needs the region and the service, and nobody needs the rest.
        _, region, service = _signed_for(environ)
        scope = f"local/20200101/{region or 'us-east-1'}/{service or 's3'}/aws4_request"
        headers["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        entry = {"time": time_s, "method": environ["REQUEST_METHOD"], "path": environ.get("PATH_INFO", "/")}
        entry |= {"query": environ.get("QUERY_STRING", ""), "headers": headers, "body": base64.b64encode(body).decode()}
        self._journal.append(entry)

    def replay(self, app: WsgiApp, own: Mapping[str, Operation]) -> list[str]:
        """Repeat the requests in order; return those that fail. SageMaker's, of earlier versions, become records."""
        failed, kept = [], []
        for entry in self._journal.entries():
            target = entry["headers"].get("HTTP_X_AMZ_TARGET", "")
            clock.time_s = float(entry["time"])
            status: object
            try:
                if target.startswith("SageMaker."):
                    own[target](json.loads(base64.b64decode(entry["body"])))
                    continue
                status = _call(app, entry)
            except Exception as error:  # a request that this version refuses, or what moto has not implemented
                status = error
            kept.append(entry)
            # A bucket exists already: its folder has brought it back.
            is_bucket = entry["method"] == "PUT" and not entry["query"] and not target
            if not is_bucket and (not isinstance(status, int) or status >= 400):
                failed.append(f"{target or entry['path']}: {status}")
        clock.time_s = None
        self._journal.rewrite(kept)
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
    return _signed_for(environ)[2]


def key_of_request(environ: Environ) -> str:
    """Return the access key that signed a request; empty for an unsigned one."""
    return _signed_for(environ)[0]


def read_body(environ: Environ) -> bytes:
    """Return a request's body, and put it back for the next reader."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _signed_for(environ: Environ) -> tuple[str, str, str]:
    match = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    return (match[1], match[2], match[3]) if match else ("", "", "")


def _call(app: WsgiApp, entry: dict[str, Any]) -> int:
    body = base64.b64decode(entry["body"])
    environ: Environ = create_environ(base_url=f"http://{HOST}", method=entry["method"], data=body)
    address = f"{quote(entry['path'])}?{entry['query']}"  # which moto reads, too
    environ |= {"PATH_INFO": entry["path"], "QUERY_STRING": entry["query"], "RAW_URI": address, **entry["headers"]}
    _, status, _ = run_wsgi_app(app, environ, buffered=True)
    return int(status.split()[0])
