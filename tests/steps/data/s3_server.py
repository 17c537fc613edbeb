"""An S3 server on loopback that can be told to fail."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import s3fs
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

BUCKET = "test-bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    # One 503 is then past the client's own retries.
    "AWS_MAX_ATTEMPTS": "1",
}
Fault = Callable[[str, str], bool | str]
# What S3 answers when it is busy, when it is broken, and when the connection breaks in the middle of a body.
ANSWERS = {
    "ServiceUnavailable": "503 Service Unavailable",
    "SlowDown": "503 Slow Down",
    "InternalError": "500 Internal Server Error",
}
RESET = "reset"


class S3:
    """The server's controls."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.faults: list[Fault] = []
        """Each is asked (method, path and query) and used up when it says yes: the answer is a 503, or what it names:
        SlowDown, InternalError, or a reset after half of the body."""
        self.client: Any = boto3.client("s3", endpoint_url=endpoint)

    def names(self, prefix: str) -> list[str]:
        """Return the names of the objects under a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        return sorted(item["Key"].removeprefix(f"{prefix}/") for page in pages for item in page.get("Contents", []))

    def read(self, key: str) -> bytes:
        """Return an object."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content


def _half(body: Iterable[bytes]) -> Iterator[bytes]:
    """Send half of a body whose whole length was announced, and break the connection."""
    content = b"".join(body)
    yield content[: len(content) // 2]
    raise ConnectionResetError


@contextmanager
def serving() -> Iterator[S3]:
    """Run the server in a thread and point this process, and those it starts, to it."""
    before = dict(os.environ)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    controls: list[S3] = []

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        for fault in controls[0].faults if controls else []:
            said = fault(environ["REQUEST_METHOD"], request)
            if said:
                controls[0].faults.remove(fault)
                if said == RESET:
                    return _half(application(environ, start_response))
                code = "ServiceUnavailable" if said is True else str(said)
                get_input_stream(environ).read()
                start_response(ANSWERS[code], [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>try later</Message></Error>".encode()]
        return application(environ, start_response)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=endpoint)
    # s3fs hands out the client of a server that is gone, and moto's servers in one process share what they hold.
    s3fs.S3FileSystem.clear_instance_cache()
    s3_backends.reset()
    try:
        controls.append(S3(endpoint))
        controls[0].client.create_bucket(Bucket=BUCKET)
        yield controls[0]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        # Ray's native part keeps the first token of a process: another one would keep the next cluster's head waiting.
        token = {name: os.environ[name] for name in ("RAY_AUTH_TOKEN",) if name in os.environ}
        os.environ.clear()
        os.environ.update(before | token)
