"""What benchmarks talk to, each a process of its own on loopback: a web of pictures, and an S3 server.

    python -m benchmarks.servers pictures|s3

Prints its address and serves until its stdin ends, so that it ends with whoever started it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 64
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "WANDB_MODE": "disabled",
}


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """Run a server as a process, which ends with its stdin; yields the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.servers", kind],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise SystemExit(f"error: the server of {kind} did not start")
        yield address
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def serve_pictures() -> None:
    """Serve PICTURES drawn pictures under any number of addresses, no two with the same bytes."""
    bodies = [picture(number) for number in range(PICTURES)]

    class PictureHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies[int(self.path.strip("/").removesuffix(".jpg")) % PICTURES] + self.path.encode()
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

    with Server(("127.0.0.1", 0), PictureHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        sys.stdin.read()
        server.shutdown()


def picture(number: int) -> bytes:
    """Return a JPEG of 480 x 360 with detail, some 60 KB: about what LAION's have."""
    numbers = np.random.default_rng(number)
    coarse = Image.fromarray(numbers.integers(0, 256, (60, 80, 3), np.uint8)).resize(
        (480, 360), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    coarse.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def serve_s3() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    {"pictures": serve_pictures, "s3": serve_s3}[sys.argv[1]]()
