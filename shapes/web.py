"""The web of the local run: an HTTP server on loopback for a folder of pictures, with the web's faults.

    python -m shapes serve --folder DIR --port 0 --port-file FILE [--until PID]

Reads DIR/pictures, DIR/corrupt and DIR/small, which `python -m shapes render` writes, before or while it serves; writes
the port that it got to FILE. Says nothing for a request; ends on SIGTERM or SIGINT. `shapes.faults` lists the faults.
"""

import contextlib
import http.server
import re
import signal
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Final

import psutil

from params.files import write_text
from shapes.faults import FAULTS, NAMES, PICTURES

HOST: Final = "127.0.0.1"
MEDIA_TYPES: Final = {".jpg": "image/jpeg", ".png": "image/png"}
DRIP_INTERVAL_S: Final = 0.25
IDLE_TIMEOUT_S: Final = 30.0
UNTIL_POLL_S: Final = 0.5
_PATH: Final = re.compile(r"/(?P<part>[a-z]+)/(?P<name>[a-z0-9]+\.(?:jpg|png))")
_OWN_FOLDERS: Final = frozenset(fault.name for fault in FAULTS if fault.has_files) | {PICTURES}
_KNOWN: Final = frozenset({*NAMES, PICTURES})


class Web(http.server.ThreadingHTTPServer):
    """The server: one thread for each connection, and a backlog for 64 clients that arrive at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, folder: Path, port: int, drip_s: float) -> None:
        """Listen on loopback; port 0 takes a free one. A slow picture takes drip_s seconds."""
        self.folder, self.drip_s = folder, drip_s
        self._seen, self._lock = set[str](), threading.Lock()
        super().__init__((HOST, port), FaultyHandler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that hang up on a drip; report anything else as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def base_url(self) -> str:
        """Address before the path, as http://127.0.0.1:8000."""
        return f"http://{HOST}:{self.server_address[1]}"

    def is_first(self, path: str) -> bool:
        """Return whether a path is asked for the first time since the server started."""
        with self._lock:
            first = path not in self._seen
            self._seen.add(path)
        return first


class FaultyHandler(http.server.BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: Web
    protocol_version = "HTTP/1.1"
    server_version = "shapes"
    timeout = IDLE_TIMEOUT_S
    # Headers and body leave in one packet: two small ones would wait 40 ms for each other's acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        """Answer with the picture, or with the fault that the path names."""
        found = _PATH.fullmatch(self.path)
        part, name = (found["part"], found["name"]) if found else ("", "")
        file = self.server.folder / (part if part in _OWN_FOLDERS else PICTURES) / name
        if part not in _KNOWN or part == "missing" or not file.is_file():
            self._empty(HTTPStatus.NOT_FOUND)
        elif part == "redirect":
            self._empty(HTTPStatus.FOUND, {"Location": f"/{PICTURES}/{name}"})
        elif part == "flaky" and self.server.is_first(self.path):
            self._empty(HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            self._picture(file, {"X-Robots-Tag": "noai"} if part == "noai" else {}, slow=part == "slow")

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: 4,000 lines would bury what matters."""

    def _empty(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": "0", **(headers or {})})

    def _picture(self, file: Path, headers: dict[str, str], slow: bool) -> None:
        body, media_type = file.read_bytes(), MEDIA_TYPES[file.suffix]
        self._head(HTTPStatus.OK, {"Content-Type": media_type, "Content-Length": str(len(body)), **headers})
        if self.command == "HEAD":
            return
        # In equal parts over drip_s seconds, never silent for long: a time-out for each read does not end it.
        parts = max(1, round(self.server.drip_s / DRIP_INTERVAL_S)) if slow else 1
        part_bytes = max(1, -(-len(body) // parts))
        for start in range(0, len(body), part_bytes):
            time.sleep(DRIP_INTERVAL_S if slow else 0.0)
            self.wfile.write(body[start : start + part_bytes])
            self.wfile.flush()

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def serve(folder: Path, port: int, port_file: Path | None, drip_s: float, until: int) -> None:
    """Serve until SIGTERM, SIGINT or the end of the process `until` (0: none); the port file says that it does."""
    ended = threading.Event()
    if until:
        threading.Thread(target=_end_with, args=(until, ended), name="until", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Web(folder, port, drip_s) as web:
        threading.Thread(target=web.serve_forever, name="web", daemon=True).start()
        print(f"serving {folder} at {web.base_url}", flush=True)
        if port_file is not None:
            write_text(port_file, str(web.server_address[1]))
        ended.wait()
        web.shutdown()


def _end_with(process: int, ended: threading.Event) -> None:
    """End soon after a process that is not this one's child."""
    with contextlib.suppress(psutil.Error):
        watched = psutil.Process(process)
        while watched.is_running() and watched.status() != psutil.STATUS_ZOMBIE:
            time.sleep(UNTIL_POLL_S)
    ended.set()
