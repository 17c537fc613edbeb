"""A small web on loopback for tests: pictures, and what goes wrong with pictures on the web."""

import gzip
import io
import struct
import threading
import time
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
        self.locations: dict[str, bytes] = {}
        self.busy_until_s = 0.0
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

    def _page(self, rest: str) -> None:
        self._answer(b"<!DOCTYPE html><html>")

    def _part(self, rest: str) -> None:
        """/part/FIRST-LAST/TOTAL: what a range of a hundred bytes would be answered with."""
        self._answer(picture(1), headers={"Content-Range": f"bytes {rest}"}, status=206)

    def _status_with_picture(self, rest: str) -> None:
        self._answer(picture(1), status=int(rest))

    def _header(self, rest: str) -> None:
        name, _, value = rest.partition("/")
        self._answer(picture(1), headers={name: value})

    def _packed(self, rest: str) -> None:
        """Pack the picture as Content-Encoding says, though nobody asked for it."""
        content, bare = picture(1), zlib.compressobj(wbits=-15)
        packed = {
            "deflate": ("deflate", zlib.compress(content)),
            "deflate-bare": ("deflate", bare.compress(content) + bare.flush()),
            "gzip,gzip": ("gzip, gzip", gzip.compress(gzip.compress(content))),
            "utf-8": ("utf-8", content),
            "gzip-members": ("gzip", gzip.compress(content[:500]) + gzip.compress(content[500:])),
            "gzip-trailing": ("gzip", gzip.compress(content) + bytes(20)),
            "br-plain": ("br", content),
            "br-odd": ("br", bytes(range(200))),
            "zstd-gzip": ("zstd, gzip", gzip.compress(b"\x28\xb5\x2f\xfd")),
            "gzip-members-bomb": ("gzip", gzip.compress(bytes(1 << 19)) * 3),
            "gzip-bomb": ("gzip", gzip.compress(bytes(2 << 20))),
            "gzip-cut": ("gzip", gzip.compress(content)[:-50]),
            "gzip-broken": ("gzip", content),
        }
        coding, body = packed.get(rest, (rest, gzip.compress(content)))
        self._answer(body, headers={"Content-Encoding": coding})

    def _location(self, rest: str) -> None:
        """Send the bytes of a Location as they are."""
        location = self.server.locations[self.path]
        self.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: " + location + b"\r\n\r\n")

    def _hints(self, rest: str) -> None:
        """Send informational answers before the final one."""
        for status in rest.split(","):
            self.wfile.write(f"HTTP/1.1 {status} Early\r\nLink: <style.css>\r\n\r\n".encode())
        self._answer(picture(1))

    def _hops(self, rest: str) -> None:
        """/hops/N: N redirects; /hops/noai: one that reserves what it leads to."""
        if rest == "noai":
            self._head(302, {"Location": "/picture/1", "X-Robots-Tag": "noai"})
        else:
            self._head(302, {"Location": f"/hops/{int(rest) - 1}" if int(rest) > 1 else "/picture/1"})

    def _entity(self, rest: str) -> None:
        if "&amp;" in self.path:
            self._missing(rest)
        else:
            self._answer(picture(1))

    def _contact(self, rest: str) -> None:
        if "+http" in self.headers["User-Agent"]:
            self._answer(picture(1))
        else:
            self._head(403, {})

    def _patience(self, rest: str) -> None:
        """/patience/STATUS/...: wants to be left alone for a second, until busy_until_s."""
        if time.monotonic() < self.server.busy_until_s:
            self._head(int(rest.partition("/")[0]), {"Retry-After": "1"})
        else:
            self._answer(picture(1))

    def _closed(self, rest: str) -> None:
        self._head(429, {"Retry-After": "86400"})

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

    def _answer(
        self, content: bytes, length: int | None = None, headers: dict[str, str] | None = None, status: int = 200
    ) -> None:
        self._head(status, {"Content-Length": str(len(content) if length is None else length), **(headers or {})})
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
