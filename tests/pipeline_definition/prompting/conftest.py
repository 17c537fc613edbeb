"""A server that draws grey squares, on a real socket: the seed is the level, and it keeps what it was asked."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest
from PIL import Image

SIDE_PX = 16
DEFAULTS = {"steps": 4, "guidance_scale": 3.0, "width": SIDE_PX, "height": SIDE_PX, "sampler": "dpm++"}


def grey(seed: int, form: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE_PX, SIDE_PX), (seed % 256,) * 3).save(file, form.upper())
    return file.getvalue()


class DrawingServer(ThreadingHTTPServer):
    """Answers as the endpoint does; `refusals` are answered first, in their order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.refusals: list[tuple[int, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        form, seed = request.get("format", "png"), request.get("seed", 7)
        pictures = [
            {
                "image": base64.b64encode(grey(seed + index, form)).decode(),
                "format": form,
                "width": SIDE_PX,
                "height": SIDE_PX,
                "seed": seed + index,
                "prompt_index": 0,
                "flagged": False,
                "truncated": len(request["prompt"]) > 100,
            }
            for index in range(request.get("num_images", 1))
        ]
        settings = {name: request.get(name, value) for name, value in DEFAULTS.items()}
        return {"images": pictures, "model": "grey/1", "settings": settings, "queue_s": 0.0, "render_s": 0.25}


Served = TypeVar("Served", bound=DrawingServer)


class _Handler(BaseHTTPRequestHandler):
    server: DrawingServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        status, body = self.server.refusals.pop(0) if self.server.refusals else (200, self.server.answer(request))
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def refusal(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": {"status": status, "message": message}}


@contextmanager
def serving(server: Served) -> Iterator[Served]:
    """Run a server in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def drawing() -> Iterator[DrawingServer]:
    with serving(DrawingServer()) as server:
        yield server
