"""A small web on loopback for tests: pictures, and what goes wrong with pictures on the web."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def picture(number: int, size: tuple[int, int] = (96, 96), kind: str = "JPEG") -> bytes:
    """Return a picture that its number decides: a smooth gradient between two colours."""
    colours = np.random.default_rng(number).integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, size[0])[None, :, None] * np.linspace(0.5, 1, size[1])[:, None, None]
    pixels = (colours[0] * ramp + colours[1] * (1 - ramp)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def bomb(side: int = 20_000) -> bytes:
    """Return a PNG of some kilobytes that would decode to side x side pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Web(ThreadingHTTPServer):
    """The server: `host` is host:port, `hits` counts requests by path."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.host}"
        self.hits: Counter[str] = Counter()
        self.stopping = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet about clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        path = self.path
        self.server.hits[path] += 1
        name, _, rest = path.partition("?")[0].strip("/").partition("/")
        getattr(self, f"_{name}", self._missing)(rest)

    def _picture(self, rest: str) -> None:
        self._answer(picture(int(rest)))

    def _wide(self, rest: str) -> None:
        self._answer(picture(int(rest), (400, 96)))

    def _small(self, rest: str) -> None:
        self._answer(picture(int(rest), (20, 20)))

    def _png(self, rest: str) -> None:
        self._answer(picture(int(rest), kind="PNG"))

    def _cut(self, rest: str) -> None:
        self._answer(picture(int(rest))[:-200])

    def _short(self, rest: str) -> None:
        content = picture(int(rest))
        self._answer(content[:-200], length=len(content))

    def _noise(self, rest: str) -> None:
        self._answer(b"\xff\xd8\xff\xda" + bytes(range(200)) + b"\xff\xd9")

    def _svg(self, rest: str) -> None:
        self._answer(SVG)

    def _bomb(self, rest: str) -> None:
        self._answer(bomb())

    def _huge(self, rest: str) -> None:
        self._answer(b"", length=10 << 30)

    def _endless(self, rest: str) -> None:
        self._head(200, {"Content-Type": "image/jpeg"})
        while not self.server.stopping.is_set():
            self.wfile.write(bytes(1 << 16))

    def _slow(self, rest: str) -> None:
        """Send a byte from time to time: every read succeeds."""
        self._head(200, {"Content-Length": "100000"})
        while not self.server.stopping.wait(0.1):
            self.wfile.write(b"\xff")

    def _slowheader(self, rest: str) -> None:
        while not self.server.stopping.wait(0.1):
            self.wfile.write(b"H")
            self.wfile.flush()

    def _robots(self, rest: str) -> None:
        self._answer(picture(1), headers={"X-Robots-Tag": rest.replace("_", " ")})

    def _redirect(self, rest: str) -> None:
        self._head(302, {"Location": rest})

    def _around(self, rest: str) -> None:
        self._head(302, {"Location": self.path + "x"})

    def _busy(self, rest: str) -> None:
        """Answer 503 the first time."""
        if self.server.hits[self.path] == 1:
            self._head(503, {})
        else:
            self._answer(picture(int(rest)))

    def _status(self, rest: str) -> None:
        self._head(int(rest), {})

    def _missing(self, rest: str) -> None:
        self._head(404, {})

    def _answer(self, content: bytes, length: int | None = None, headers: dict[str, str] | None = None) -> None:
        self._head(200, {"Content-Length": str(len(content) if length is None else length), **(headers or {})})
        self.wfile.write(content)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Web]:
    """Run the server in a thread."""
    server = Web()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
