"""Serve the local control plane until SIGTERM, SIGINT or the end of its leash.

Reads and writes the state and runs folders; <state>/control_plane.json has its URL once it answers.

    python -m pipeline_definition.local --state .sd-pipeline --runs runs [--port 0] [--url-file FILE] [--leash]

With --leash it also ends when standard input does, unless a line `stay` came before.
"""

import argparse
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from params.files import write_text
from pipeline_definition.local.container_engine import ENGINES, ContainerEngine
from pipeline_definition.local.control_plane import ControlPlane
from pipeline_definition.local.settings import PROCESS, LocalSettings
from pipeline_definition.local.state_lock import StateInUseError

STAY = "stay"
STATE_IN_USE_STATUS = 3
_M_ARENA_MAX = -8


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    with contextlib.suppress(AttributeError):  # only glibc keeps memory for each of many short threads
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    settings = LocalSettings(
        state=arguments.state,
        runs=arguments.runs,
        images=json.loads(arguments.images.read_text(encoding="utf-8")) if arguments.images else {},
        backend=arguments.backend,
        engine=None if arguments.backend == PROCESS else ContainerEngine.find(arguments.backend, os.environ),
        grace_s=arguments.grace_s,
        sync_every_s=arguments.sync_every_s,
    )
    try:
        plane = ControlPlane(settings, arguments.port)
    except StateInUseError as error:
        print(f"error: {error}", file=sys.stderr)
        return STATE_IN_USE_STATUS
    plane.start()
    if arguments.url_file:
        write_text(arguments.url_file, plane.url)
    with contextlib.suppress(OSError):
        print(plane.url, flush=True)
    if arguments.leash:
        threading.Thread(target=_hold_leash, args=(ended,), daemon=True).start()
    ended.wait()
    plane.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline_definition.local", allow_abbrev=False)
    parser.add_argument("--state", type=Path, default=Path(".sd-pipeline"), help="folder of everything that lasts")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the executions")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--url-file", type=Path, help="where to write the URL, too, once it answers")
    parser.add_argument("--leash", action="store_true", help="end with standard input")
    parser.add_argument("--images", type=Path, help="JSON: image URI pattern to the argv of its entry point")
    parser.add_argument("--backend", choices=(PROCESS, *ENGINES), default=PROCESS, help="what runs jobs and endpoints")
    parser.add_argument("--grace-s", type=float, default=10.0, help="from SIGTERM to SIGKILL, in seconds")
    parser.add_argument("--sync-every-s", type=float, default=2.0, help="between two copies of checkpoints to S3")
    return parser


def _hold_leash(ended: threading.Event) -> None:
    data = b""
    while block := os.read(sys.stdin.fileno(), 4096):
        data += block
        if STAY.encode() in data.split(b"\n"):
            return
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
