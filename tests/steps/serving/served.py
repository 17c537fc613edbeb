"""The server as a process, on a free port of this machine."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx

from tests.steps.serving.waiting import until

SETTINGS = {
    "SERVE_HOST": "127.0.0.1",
    "SERVE_DEFAULT_SIZE_PX": "32",
    "SERVE_MAX_SIZE_PX": "64",
    "SERVE_INFERENCE_STEPS": "2",
    "SERVE_MAX_INFERENCE_STEPS": "500",
    "SERVE_PRECISION": "float32",
    "SERVE_THREADS": "1",
    "SERVE_MAX_BODY_BYTES": "4096",
    "SERVE_BODY_TIMEOUT_S": "0.5",
    "SERVE_MODEL_NAME": "tiny",
}


class Server:
    """`python -m steps serve` on a model folder."""

    def __init__(self, base_dir: Path, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_dir = base_dir
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("SERVE_")},
            **SETTINGS,
            **settings,
            "SAGEMAKER_BASE_DIR": str(base_dir),
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "OMP_NUM_THREADS": "1",
        }
        self.log = base_dir / "log.jsonl"
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "steps", "serve"]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def ping(self) -> int:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/ping", timeout=10).status_code
        return 0

    def invoke(self, **fields: object) -> httpx.Response:
        return httpx.post(f"{self.url}/invocations", json={"prompt": "a", **fields}, timeout=60)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def wait_until_ready(self) -> None:
        until(lambda: self.ping() == 200 or self.process.poll() is not None, 240)
        assert self.process.poll() is None, self.log.read_text()[-2000:]

    def metric(self, name: str) -> float:
        """Return one figure of /metrics; 0 where it was never counted."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
