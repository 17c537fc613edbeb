"""The world of a local run: what an AWS account would already hold, made on this machine.

Reads the parameter set's `local` section; writes the bucket, the url table, the small pretrained models and the file
system into the local control plane, and the pictures into <state>/world/. Each part is made once and reused. Shapes are
drawn where there is no other data; an object that a run did not make is neither overwritten nor joined by another.
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from params.arguments import to_flags
from params.files import import_path
from params.layout import EVALUATOR, LATENTS
from params.parameter_names import FSX_ID
from params.s3 import join_uri, split_uri, unless_missing
from params.settings import LocalWorld, Settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.runs.upload import Upload
from pipeline_definition.session import Target

STARTUP_LIMIT_S = 60.0
STDERR = 2
MODELS: Final = (".safetensors", ".json", ".jsonl", ".txt")
SHAPES_TABLE: Final = "urls.parquet"
# By which a run knows the objects that it put into the bucket.
RUN_LOCAL: Final = "run-local"


@dataclass(frozen=True)
class Laptop:
    """One parameter set's world, in one state folder, behind one local control plane."""

    settings: Settings
    target: Target
    world_dir: Path
    """Pictures and url table; belongs to the state and can be deleted with it."""
    root: Path
    """Where the packages lie: a checkout, or what pip installed."""
    own_files: Mapping[str, Path] = field(default_factory=dict)
    """Data of one's own that go to data.url_table, by name."""
    until: int = 0
    """The pictures are served until this process ends, the local control plane's; 0: until the context does."""

    @contextmanager
    def ready(self) -> Iterator[dict[str, str]]:
        """Make the world, and serve its pictures while the run lasts; yield the parameters that only it knows."""
        bucket = self.settings.account.bucket
        if unless_missing(self._s3.head_bucket, Bucket=bucket) is None:
            self._s3.create_bucket(Bucket=bucket)
        if self.own_files:
            print(f"uploading {len(self.own_files):,} files to {self.settings.data.url_table}", file=sys.stderr)
            Upload(self._s3, self.settings.data.url_table, self.own_files, RUN_LOCAL).send()
        self._upload_models(self._local.pretrained_dir, self.settings.data.pretrained_uri)
        self._upload_models(self._local.evaluator_dir, self.settings.data.evaluator_uri)
        if self.settings.recaption:
            self._upload_models(self._local.captioner_dir, self.settings.recaption.captioner_uri)
        with self._picture_server() if self._draws_shapes() else nullcontext() as port:
            if port:
                self._draw_pictures(f"http://127.0.0.1:{port}")
                self._table_upload().send()
            yield {FSX_ID: self._make_file_system()}

    @property
    def _local(self) -> LocalWorld:
        if self.settings.local is None:
            raise OperatorError("this parameter set has no `local:` section; params/local.yaml is the one for a laptop")
        return self.settings.local

    def _draws_shapes(self) -> bool:
        """Whether the run's data are the shapes; their table beside other data is taken away. Raises OperatorError."""
        uri, table = self.settings.data.url_table, self._table_upload()
        # By its mark or, where it was put there before there was one, by the copy in the world.
        is_same = (self.world_dir / SHAPES_TABLE).is_file() and not table.differing
        is_ours = SHAPES_TABLE in table.there and (is_same or table.is_ours(SHAPES_TABLE))
        others = [name for name in table.there if not (is_ours and name == SHAPES_TABLE)]
        bucket, key = split_uri(uri)
        is_name = bool(key) and not key.endswith("/")
        is_object = is_name and unless_missing(self._s3.head_object, Bucket=bucket, Key=key) is not None
        if not others and not is_object:
            if self.settings.download.source == "urls":
                return True
            raise OperatorError(f"data.url_table: nothing lies under {uri}; `run-local --data FOLDER` puts it there")
        if is_ours:
            self._delete(join_uri(uri, SHAPES_TABLE))
        print(f"data of your own under {uri}: no shapes are drawn", file=sys.stderr)
        return False

    def _table_upload(self) -> Upload:
        table = {SHAPES_TABLE: self.world_dir / SHAPES_TABLE}
        return Upload(self._s3, self.settings.data.url_table, table, RUN_LOCAL, replace=True)

    @contextmanager
    def _picture_server(self) -> Iterator[int]:
        pictures, port_file = self.world_dir / "pictures", self.world_dir / "port"
        pictures.mkdir(parents=True, exist_ok=True)
        port = _port_in(port_file)
        if port and _serves_pictures(port):
            # For a run that `start` began: its url table names this port.
            yield port
            return
        port_file.unlink(missing_ok=True)
        port = port if _is_free(port) else 0
        serve = ["serve", "--folder", str(pictures), "--port", str(port), "--port-file", str(port_file)]
        # It ends with that process, however that ends; it may outlive this one, and must not hold its output.
        with (self.world_dir / "pictures.log").open("ab") as log:
            ends = ["--until", str(self.until or os.getpid())]
            server = self._shapes([*serve, *ends], output=log.fileno(), start_new_session=True)
        try:
            yield _wait_for_port(port_file, server)
        finally:
            if not self.until:
                server.terminate()
                server.wait(timeout=10)

    def _draw_pictures(self, base_url: str) -> None:
        arguments = {
            "folder": self.world_dir / "pictures",
            "table": self.world_dir / SHAPES_TABLE,
            "base_url": base_url,
            "rows": self._local.rows,
            "max_aspect_ratio": self._local.max_aspect_ratio,
        }
        if status := self._shapes(["render", *map(str, to_flags(arguments))]).wait():
            raise OperatorError(f"drawing the pictures failed with status {status}; its message is above")

    def _upload_models(self, folder: str, uri: str) -> None:
        """Upload the small models, unless something lies there that a run did not make."""
        place = self.root / folder
        if not place.is_dir():
            raise OperatorError(f"{place} is missing; restore the folder, or name another one under local:")
        upload = Upload(self._s3, uri, model_files(place), RUN_LOCAL, replace=True)
        if not all(map(upload.is_ours, [*upload.differing, *upload.others])):
            print(f"models of your own under {uri}: they are used as they are", file=sys.stderr)
            return
        upload.send()
        for name in upload.others:
            self._delete(join_uri(uri, name))

    def _delete(self, uri: str) -> None:
        bucket, key = split_uri(uri)
        self._s3.delete_object(Bucket=bucket, Key=key)

    @cached_property
    def _s3(self) -> Any:
        return self.target.client("s3")

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
        file_system = str(made["FileSystem"]["FileSystemId"])
        fsx.create_data_repository_association(
            FileSystemId=file_system,
            FileSystemPath="/" + self.settings.file_system.fsx_path.strip("/").split("/", 1)[1],
            DataRepositoryPath=f"s3://{self.settings.account.bucket}/{LATENTS}/",
            S3={"AutoImportPolicy": {"Events": ["NEW", "CHANGED", "DELETED"]}},
        )
        return file_system

    def _shapes(self, arguments: list[str], output: int = STDERR, **options: Any) -> subprocess.Popen[bytes]:
        # From anywhere, and never a module of the folder that the user is in. Its output is for people: standard output
        # is the command's own, and may be JSON.
        command = [sys.executable, "-P", "-m", "shapes", *arguments]
        options |= {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        return subprocess.Popen(command, env={**os.environ, **import_path(self.root)}, **options)


def _port_in(file: Path) -> int:
    """Return the port that the picture server has, or had last time: the url table names it; 0: none is known."""
    with suppress(OSError, ValueError):
        return int(file.read_text(encoding="utf-8"))
    return 0


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def _serves_pictures(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("HEAD", "/")
        return (connection.getresponse().getheader("Server") or "").startswith("shapes ")
    return False


def model_files(folder: Path) -> dict[str, Path]:
    """Return what jobs read of a folder of models, by name: no pickle, nothing hidden, and no evaluator beside them."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.suffix in MODELS}
    return {name: path for name, path in files.items() if not name.startswith((".", EVALUATOR + "/"))}


def _wait_for_port(port_file: Path, server: subprocess.Popen[bytes]) -> int:
    deadline_s = time.monotonic() + STARTUP_LIMIT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            log = port_file.with_name("pictures.log")
            raise OperatorError(f"the picture server ended with status {server.returncode}; {log} says why")
        if port := _port_in(port_file):
            return port
        time.sleep(0.05)
    raise OperatorError(f"the picture server did not start within {STARTUP_LIMIT_S:.0f} s")
