"""The world of a local run: what an AWS account would already hold, made on this machine.

Reads the parameter set's `local` section; writes the bucket, the url table, the small pretrained models and the file
system into the local control plane, and the pictures into <state>/world/. Each part is made once and reused.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from params.layout import LATENTS
from params.parameter_names import FSX_ID
from params.s3 import is_missing, join_uri, split_uri
from params.settings import LocalWorld, Settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

STARTUP_LIMIT_S = 60.0
STDERR = 2


class LaptopError(OperatorError):
    """The local world cannot be made: the message says what is missing and the fix."""


@dataclass(frozen=True)
class Laptop:
    """One parameter set's world, in one state folder, behind one local control plane."""

    settings: Settings
    target: Target
    world_dir: Path
    """Pictures and url table; belongs to the state and can be deleted with it."""
    root: Path
    """The repository: `python -m shapes` runs there."""

    @contextmanager
    def ready(self) -> Iterator[dict[str, str]]:
        """Make the world and serve its pictures while the run lasts; yield the parameters that only it knows."""
        self._make_bucket()
        with self._picture_server() as base_url:
            self._draw_pictures(base_url)
            self._upload_inputs()
            yield {FSX_ID: self._make_file_system()}

    @property
    def _local(self) -> LocalWorld:
        if self.settings.local is None:
            raise LaptopError("this parameter set has no `local:` section; params/local.yaml is the one for a laptop")
        return self.settings.local

    def _make_bucket(self) -> None:
        s3 = self.target.client("s3")
        try:
            s3.head_bucket(Bucket=self.settings.account.bucket)
        except ClientError as error:
            if not is_missing(error):
                raise
            s3.create_bucket(Bucket=self.settings.account.bucket)

    @contextmanager
    def _picture_server(self) -> Iterator[str]:
        self.world_dir.mkdir(parents=True, exist_ok=True)
        pictures = self.world_dir / "pictures"
        pictures.mkdir(exist_ok=True)
        port_file = self.world_dir / "port"
        port = self._remembered_port(port_file)
        port_file.unlink(missing_ok=True)
        # The server ends with its stdin: when this process is killed, nothing of it stays behind.
        serve = ["serve", "--folder", str(pictures), "--port", str(port), "--port-file", str(port_file), "--leash"]
        server = self._shapes(serve, stdin=subprocess.PIPE)
        try:
            yield f"http://127.0.0.1:{_wait_for_port(port_file, server)}"
        finally:
            server.terminate()
            server.wait(timeout=10)

    def _draw_pictures(self, base_url: str) -> None:
        table = self.world_dir / "urls.parquet"
        arguments = ["--folder", str(self.world_dir / "pictures"), "--table", str(table), "--base-url", base_url]
        arguments += ["--rows", str(self._local.rows), "--max-aspect-ratio", str(self._local.max_aspect_ratio)]
        status = self._shapes(["render", *arguments]).wait()
        if status != 0:
            raise LaptopError(f"drawing the pictures failed with status {status}; its message is above")

    def _upload_inputs(self) -> None:
        data = self.settings.data
        self._upload(self.world_dir / "urls.parquet", join_uri(data.url_table, "urls.parquet"))
        self._upload_folder(self.root / self._local.pretrained_dir, data.pretrained_uri)
        self._upload_folder(self.root / self._local.evaluator_dir, data.evaluator_uri)

    def _upload_folder(self, folder: Path, uri: str) -> None:
        if not folder.is_dir():
            raise LaptopError(f"{folder} is missing; `python -m shapes train-models` makes the small models")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._upload(path, join_uri(uri, path.relative_to(folder).as_posix()))

    def _upload(self, path: Path, uri: str) -> None:
        self.target.client("s3").upload_file(str(path), *split_uri(uri, LaptopError))

    def _make_file_system(self) -> str:
        """Return the file system's id: FSx for Lustre linked to the bucket's latents/, as infrastructure makes it."""
        fsx = self.target.client("fsx")
        for known in fsx.describe_file_systems()["FileSystems"]:
            return str(known["FileSystemId"])
        made = fsx.create_file_system(
            FileSystemType="LUSTRE",
            StorageCapacity=1200,
            SubnetIds=["subnet-00000000000000000"],
            LustreConfiguration={"DeploymentType": "PERSISTENT_2", "PerUnitStorageThroughput": 125},
        )
        file_system: dict[str, Any] = made["FileSystem"]
        fsx.create_data_repository_association(
            FileSystemId=file_system["FileSystemId"],
            FileSystemPath="/" + self.settings.file_system.fsx_path.strip("/").split("/", 1)[1],
            DataRepositoryPath=f"s3://{self.settings.account.bucket}/{LATENTS}/",
            S3={"AutoImportPolicy": {"Events": ["NEW", "CHANGED", "DELETED"]}},
        )
        return str(file_system["FileSystemId"])

    def _remembered_port(self, port_file: Path) -> int:
        """Return the port of last time where it is free: the url table, once rendered, names it."""
        try:
            port = int(port_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return 0
        return port

    def _shapes(self, arguments: list[str], stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "shapes", *arguments]
        # Its output is for people: standard output is the command's own, and may be JSON.
        return subprocess.Popen(command, cwd=self.root, stdin=stdin, stdout=STDERR)


def _wait_for_port(port_file: Path, server: subprocess.Popen[bytes]) -> int:
    deadline_s = time.monotonic() + STARTUP_LIMIT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise LaptopError(f"the picture server ended with status {server.returncode}; its message is above")
        text = port_file.read_text(encoding="utf-8") if port_file.is_file() else ""
        if text.strip():
            return int(text)
        time.sleep(0.05)
    raise LaptopError(f"the picture server did not start within {STARTUP_LIMIT_S:.0f} s")
