"""A web of pictures on loopback, which the downloads read: `python -m benchmarks.web PORT` serves until it is ended."""

from __future__ import annotations

import io
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

PICTURES = 64


class PictureHandler(BaseHTTPRequestHandler):
    """Answers any number of addresses with PICTURES drawn pictures, no two with the same bytes."""

    bodies: tuple[bytes, ...]

    def do_GET(self) -> None:
        number = int("0" + self.path.strip("/").removesuffix(".jpg"))
        body = self.bodies[number % PICTURES] + self.path.encode()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class PictureWeb(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def picture(number: int) -> bytes:
    """Return a JPEG of 480 x 360 with detail, some 60 KB: about what LAION's have."""
    coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((480, 360), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    PictureHandler.bodies = tuple(map(picture, range(PICTURES)))
    PictureWeb(("127.0.0.1", int(sys.argv[1])), PictureHandler).serve_forever()
