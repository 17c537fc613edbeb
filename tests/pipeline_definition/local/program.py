"""What the images of these tests run: `process WHAT ...`, `train` and `serve`.

Reads and writes only what the contract gives; a training's hyperparameter `do` says what it does.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])
INPUT, OUTPUT = BASE / "processing" / "input", BASE / "processing" / "output"


def host() -> str:
    folder = BASE / "config" if (BASE / "config").exists() else BASE / "input" / "config"
    return str(json.loads((folder / "resourceconfig.json").read_text())["current_host"])


def fail(reason: str = "the reason", status: str = "3", who: str = "") -> None:
    if not who or who == host():
        (BASE / "output" / "failure").write_text(reason)
        sys.exit(int(status))
    time.sleep(60)


def say(*words: str) -> None:
    print(*words, flush=True)


def exit_silently(status: str) -> None:
    print("last words", flush=True)
    sys.exit(int(status))


def sleep(seconds: str) -> None:
    print("sleeping", flush=True)
    time.sleep(float(seconds))


def breed() -> None:
    """Leave processes that ignore SIGTERM, in sessions of their own."""
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
    subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
    print("bred", flush=True)
    time.sleep(120)


def list_inputs(name: str) -> None:
    files = sorted(path.relative_to(INPUT / name).as_posix() for path in (INPUT / name).rglob("*") if path.is_file())
    (OUTPUT / "list" / f"{host()}.json").write_text(json.dumps(files))


def write(name: str, text: str) -> None:
    (OUTPUT / "out" / name).parent.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "out" / name).write_text(text)


def write_slowly() -> None:
    (OUTPUT / "out" / "first.txt").write_text("1")
    print("wrote", flush=True)
    time.sleep(30)


def environment() -> None:
    (OUTPUT / "out" / f"{host()}.json").write_text(json.dumps({**os.environ, "cwd": str(Path.cwd())}))


def die_first(folder: str) -> None:
    """Die by SIGKILL, as with a host that is lost, until the third attempt."""
    Path(folder).mkdir(exist_ok=True)
    deaths = len(list(Path(folder).iterdir()))
    (Path(folder) / str(deaths)).touch()
    if deaths < 2:
        os.kill(os.getpid(), 9)


def train() -> None:
    hyperparameters = json.loads((BASE / "input/config/hyperparameters.json").read_text())
    what = hyperparameters.get("do", "model")
    if what == "model":
        rate = float(hyperparameters.get("rate", "1"))
        print(f"loss={rate * 9}\nloss={rate}", flush=True)
        (BASE / "model" / f"{host()}.json").write_text(json.dumps(hyperparameters))
        (BASE / "output" / "data" / "note.txt").write_text("note")
    elif what == "fail":
        fail()
    elif what == "sleep":
        sleep("60")
    elif what == "look":
        found = {path.relative_to(BASE).as_posix() for path in BASE.rglob("*") if path.is_file()}
        channels = BASE / "input" / "data"
        found |= {f"input/data/{c.name}/{p.name}" for c in channels.iterdir() for p in c.iterdir()}
        (BASE / "model" / f"{host()}.json").write_text(json.dumps(sorted(found)))
    elif what == "group":
        told = json.loads((BASE / "input/config/resourceconfig.json").read_text())
        files = sorted(path.name for path in (BASE / "input" / "data").glob("latents/*"))
        (BASE / "model" / f"{host()}.json").write_text(
            json.dumps({"group": told["current_group_name"], "files": files})
        )
    elif what == "wait":
        while not (BASE / "input" / "data" / hyperparameters["for"]).exists():
            time.sleep(0.1)
    elif what == "count":
        count(int(hyperparameters["to"]), float(hyperparameters.get("pause", "0")))


def count(to: int, pause_s: float) -> None:
    """Count on from the newest checkpoint; a checkpoint is data and then a manifest."""
    folder = BASE / "checkpoints"
    done = max((json.loads(path.read_text())["done"] for path in folder.glob("*/manifest.json")), default=0)
    print(f"from {done}", flush=True)
    for number in range(done + 1, to + 1):
        time.sleep(pause_s)
        target = folder / f"{number:03d}"
        target.mkdir(exist_ok=True)  # without a manifest it does not count
        (target / "data.bin").write_bytes(bytes([number]) * 1000)
        (target / "manifest.json").write_text(json.dumps({"done": number}))
        print(f"done {number}", flush=True)
    (BASE / "model" / "count.txt").write_text(str(to))


def first_time(mark: Path) -> bool:
    is_first = not mark.exists()
    mark.touch()
    return is_first


IN_HAND: list[object] = []


def at_once(pause_s: float) -> int:
    """Take a moment; return how many requests took it together."""
    IN_HAND.append(object())
    time.sleep(pause_s)
    most = len(IN_HAND)
    IN_HAND.pop()
    return most


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"die" or (body.startswith(b"die once ") and first_time(Path(body[9:].decode()))):
            os._exit(1)
        if body.startswith((b"count ", b"slow ")):
            pause_s = 1.0 if body.startswith(b"slow") else 0.05
            self.answer(200, f"{body.decode()} at_once {at_once(pause_s)}".encode())
            return
        if body == b"bad":
            self.answer(400, b"that is bad")
        else:
            words = [os.environ.get("WHO", ""), ",".join(sorted(p.name for p in (BASE / "model").iterdir()))]
            self.answer(200, " ".join(words).encode() + b" " + body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/test")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve() -> None:
    if os.environ.get("BROKEN"):
        print("cannot serve this", flush=True)
        sys.exit(1)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "process":
        name, *values = rest
        action: Callable[..., None] = globals()[name]
        action(*values)
    else:
        {"train": train, "serve": serve}[command]()
