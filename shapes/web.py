"""The web of the local run: an HTTP server on loopback for a folder of pictures, with the web's faults.

    python -m shapes serve --folder DIR --port 0 --port-file FILE [--until PID]

Reads DIR/pictures, DIR/corrupt and DIR/small, which `python -m shapes render` writes, before or while it serves; writes
the port that it got to FILE. Says nothing for a request; ends on SIGTERM or SIGINT. `shapes.faults` lists the faults.
"""

import asyncio
import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from params.files import write_text
from shapes.faults import FAULTS, NAMES, PICTURES

HOST: Final = "127.0.0.1"
MEDIA_TYPES: Final = {".jpg": "image/jpeg", ".png": "image/png"}
DRIP_INTERVAL_S: Final = 0.25
UNTIL_POLL_S: Final = 0.5
_PATH: Final = re.compile(r"/([a-z]+)/([a-z0-9]+\.(?:jpg|png))")
_OWN_FOLDERS: Final = frozenset(fault.name for fault in FAULTS if fault.has_files) | {PICTURES}


def web(folder: Path, drip_s: float) -> Starlette:
    """Return the application that answers with a picture, or with the fault that a path names."""
    asked = set[str]()

    async def answer(request: Request) -> Response:
        path = request.scope["path"]
        is_first, found = path not in asked, _PATH.fullmatch(path)
        asked.add(path)
        part, name = found.groups() if found else ("", "")
        file = folder / (part if part in _OWN_FOLDERS else PICTURES) / name
        if part not in (*NAMES, PICTURES) or part == "missing" or not file.is_file():
            return Response(status_code=404)
        if part == "redirect":
            return RedirectResponse(f"/{PICTURES}/{name}", 302)
        if part == "flaky" and is_first:
            return Response(status_code=500)
        body, media_type = file.read_bytes(), MEDIA_TYPES[file.suffix]
        if part == "slow":
            return StreamingResponse(_drip(body, drip_s), 200, {"Content-Length": str(len(body))}, media_type)
        return Response(body, 200, {"X-Robots-Tag": "noai"} if part == "noai" else {}, media_type)

    return Starlette(routes=[Route("/{path:path}", answer)])


async def _drip(body: bytes, drip_s: float) -> AsyncIterator[bytes]:
    """Yield equal parts over drip_s seconds, never silent for long: a time-out for each read does not end it."""
    part_bytes = -(-len(body) // max(1, round(drip_s / DRIP_INTERVAL_S)))
    for start in range(0, len(body), part_bytes):
        await asyncio.sleep(DRIP_INTERVAL_S)
        yield body[start : start + part_bytes]


def server_of(application: Starlette) -> uvicorn.Server:
    """Return a silent server; clients on a drip are not waited for when it ends."""
    quiet: dict[str, Any] = {"log_config": None, "log_level": "critical", "access_log": False}
    # By its name a later command knows that this server is the run's.
    quiet |= {"server_header": False, "headers": [("Server", "shapes web")]}
    patience: dict[str, Any] = {"timeout_keep_alive": 30, "timeout_graceful_shutdown": 1}
    return uvicorn.Server(uvicorn.Config(application, lifespan="off", ws="none", **quiet, **patience))


def listen(port: int) -> tuple[socket.socket, str]:
    """Return a listening socket, on a free port where it is 0, and its address, as http://127.0.0.1:8000."""
    listening = socket.create_server((HOST, port), backlog=256)
    # A head and a body in two packets would wait 40 ms for each other's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening, f"http://{HOST}:{listening.getsockname()[1]}"


def serve(folder: Path, port: int, port_file: Path | None, drip_s: float, until: int) -> None:
    """Serve until SIGTERM, SIGINT or the end of the process `until` (0: none); the port file says that it does."""
    server = server_of(web(folder, drip_s))
    if until:
        threading.Thread(target=_end_with, args=(until, server), name="until", daemon=True).start()

    def end(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        # While it runs the server takes signals for itself; when it has ended it raises them once more.
        signal.signal(number, end)
    listening, address = listen(port)
    print(f"serving {folder} at {address}", flush=True)
    if port_file is not None:
        write_text(port_file, address.rpartition(":")[2])
    server.run([listening])


def _end_with(process: int, server: uvicorn.Server) -> None:
    """End soon after a process that is not this one's child."""
    with contextlib.suppress(psutil.Error):
        watched = psutil.Process(process)
        while watched.is_running() and watched.status() != psutil.STATUS_ZOMBIE:
            time.sleep(UNTIL_POLL_S)
    server.should_exit = True
