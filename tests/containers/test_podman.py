"""The images built and run by podman: Download and the endpoint in their containers, as somebody who is not root.

The base is this Python, without packages; the packages are this environment's, mounted, so nothing is fetched.
"""

import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from params.layout import ENTRY_POINT
from pipeline_definition.local.client import ensure_up
from pipeline_definition.session import Target
from tests.steps.data import web
from tests.steps.serving.tiny_pipeline import write_pipeline

pytestmark = [
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed"),
    pytest.mark.timeout(600),
]

BASE = "localhost/minimal-python:1"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
SITE = "/opt/host-packages"
TOOLS = ("sh", "mkdir", "chown", "id")
SHELLS = ["sh", "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "rbash", "tcsh", "zsh"]
USER = 1000
# A container of its own limits: inherited ones may be above what an unprivileged host grants.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


@dataclass
class Engine:
    """podman with its storage in one folder."""

    folder: Path
    checkout: Path

    @property
    def command(self) -> list[str]:
        return ["podman", "--root", str(self.folder / "store"), "--runroot", str(self.folder / "run"), *self.options]

    @property
    def options(self) -> list[str]:
        return ["--storage-driver", "vfs", "--runtime", "runc"]

    @property
    def mounts(self) -> list[str]:
        packages = sysconfig.get_path("purelib")
        pairs = [(packages, SITE), (LIBRARIES, LIBRARIES), (LIBRARIES, "/lib/x86_64-linux-gnu")]
        return [word for source, target in pairs for word in ("--volume", f"{source}:{target}:ro")]

    def build(self, image: str) -> str:
        arguments = ["--engine", "podman-here", "--base", BASE, "--run-as", str(USER), image]
        result = subprocess.run(
            [self.checkout / "containers" / "build.sh", *arguments],
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "BUILD_ARGUMENTS": self.build_arguments},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return "localhost/" + result.stdout.strip().split("=")[1]

    @property
    def build_arguments(self) -> str:
        return " ".join(["--isolation=chroot", "--network=host", "--layers=false", *self.mounts])

    def run(self, image: str, *arguments: str, folder: Path | None = None, entry_point: str = "") -> list[str]:
        """Return the command that runs a container."""
        volume = ["--volume", f"{folder}:/opt/ml:rw"] if folder else []
        entry = ["--entrypoint", entry_point] if entry_point else []
        return [
            *self.command,
            "run",
            "--rm",
            "--network",
            "host",
            *LIMITS,
            *self.mounts,
            *volume,
            *entry,
            image,
            *arguments,
        ]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """podman takes no path of more than 50 characters, so none of pytest's."""
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    checkout = folder / "checkout"
    for name in ("containers", "params", "steps"):
        shutil.copytree(name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for lock in (checkout / "containers").glob("*.lock"):
        lock.write_text("# The packages are mounted.\n", encoding="utf-8")
    made = Engine(folder, checkout)
    wrapper = folder / "podman-here"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(made.command)} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    write_base(folder / "base.tar")
    imported = subprocess.run(
        [*made.command, "import", "--change", "ENV PATH=/usr/bin", folder / "base.tar", BASE],
        capture_output=True,
        text=True,
        check=False,
    )
    if imported.returncode:
        pytest.skip(f"podman cannot work here: {imported.stderr.strip().splitlines()[-1]}")
    yield made
    subprocess.run([*made.command, "system", "reset", "--force"], capture_output=True, check=False)


@pytest.fixture(scope="module")
def data_image(engine: Engine) -> str:
    return engine.build("data")


@pytest.fixture(scope="module")
def inference_image(engine: Engine) -> str:
    return engine.build("inference")


def test_the_image_holds_the_code_of_params_and_steps_alone(engine: Engine, data_image: str) -> None:
    listing = "import pathlib; print(*[p for p in pathlib.Path('.').rglob('*') if p.is_file()], sep='\\n')"
    printed = _output(engine.run(data_image, "-c", listing, entry_point="python"))
    files = {line for line in printed.splitlines() if "__pycache__" not in line}
    assert "steps/__main__.py" in files
    assert {re.sub(r"^(params|steps)/.*\.py$", "code", name) for name in files} == {"code"}


def test_the_program_runs_as_somebody_who_is_not_root_and_cannot_change_it(engine: Engine, data_image: str) -> None:
    attempt = "import os; print(os.getuid(), os.access('/opt/program/steps/__main__.py', os.W_OK))"
    assert _output(engine.run(data_image, "-c", attempt, entry_point="python")) == f"{USER} False\n"


def test_an_unknown_program_is_refused(engine: Engine, data_image: str) -> None:
    result = subprocess.run(engine.run(data_image, "no-such-program"), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "unknown program 'no-such-program'" in result.stderr


def test_download_runs_in_its_container(engine: Engine, data_image: str, tmp_path: Path) -> None:
    (tmp_path / "urls").mkdir()
    with web.serving() as site:
        rows = {"url": [f"{site.url}/picture/{i}" for i in range(6)], "caption": [f"picture {i}" for i in range(6)]}
        pq.write_table(pa.table(rows), tmp_path / "urls" / "a.parquet")
        _open_to_all(tmp_path)
        flags = ["--url-table", "/opt/ml/urls", "--shards-uri", "/opt/ml/shards", "--image-size-px", "64"]
        flags += ["--processes", "1", "--threads", "4", "--retries", "0", "--allowed-hosts", site.host]
        printed = _output(engine.run(data_image, "download", *flags, folder=tmp_path))
    assert "6 of 6 rows became samples" in printed
    manifest = tmp_path / "processing" / "output" / "shards" / "manifest.json"
    assert manifest.stat().st_uid == USER
    assert json.loads(manifest.read_text(encoding="utf-8"))


def test_the_endpoint_answers_from_its_container(engine: Engine, inference_image: str, tmp_path: Path) -> None:
    write_pipeline(tmp_path / "model")
    _open_to_all(tmp_path)
    settings = {"DEFAULT_SIZE_PX": "32", "MAX_SIZE_PX": "32", "INFERENCE_STEPS": "2", "PRECISION": "float32"}
    with serving(engine, inference_image, tmp_path, settings) as address:
        body = json.dumps({"prompt": "a cat"}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.read().startswith(b"\x89PNG")


def test_the_endpoints_image_has_no_shell(engine: Engine, inference_image: str, data_image: str) -> None:
    find = "import shutil; print([name for name in %r if shutil.which(name, path=%r)])"
    code = find % (SHELLS, "/bin:/usr/bin:/usr/local/bin:/sbin:/usr/sbin")
    assert _output(engine.run(data_image, "-c", code, entry_point="python")) != "[]\n", "the base has one"
    assert _output(engine.run(inference_image, "-c", code, entry_point="python")) == "[]\n"
    command = engine.run(inference_image, "-c", "echo in", entry_point="/bin/sh")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 127
    assert result.stdout == ""


def test_the_local_control_plane_runs_a_job_in_its_image(
    engine: Engine, data_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_ENGINE", str(engine.folder / "podman-here"))
    monkeypatch.setenv("RUN_ARGUMENTS", shlex.join([*LIMITS, *engine.mounts]))
    with (
        web.serving() as site,
        ensure_up(tmp_path / "state", tmp_path / "runs", leash=True, backend="podman") as plane,
    ):
        target = Target("us-east-1", plane.url)
        rows = {"url": [f"{site.url}/picture/{i}" for i in range(4)], "caption": [f"picture {i}" for i in range(4)]}
        table = io.BytesIO()
        pq.write_table(pa.table(rows), table)
        s3, sagemaker = target.client("s3"), target.client("sagemaker")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="urls/a.parquet", Body=table.getvalue())
        flags = ["--url-table", "s3://bucket/urls/", "--shards-uri", "s3://bucket/shards", "--image-size-px", "64"]
        flags += ["--processes", "1", "--threads", "4", "--retries", "0", "--allowed-hosts", site.host]
        sagemaker.create_processing_job(**processing_job(data_image, flags))
        about = _ended(sagemaker, "download")
        log = "".join(path.read_text() for path in (tmp_path / "runs").rglob("*.log"))
        assert about["ProcessingJobStatus"] == "Completed", f"{about.get('FailureReason')}\n{log[-3000:]}"
        manifest = json.loads(s3.get_object(Bucket="bucket", Key="shards/manifest.json")["Body"].read())
        assert manifest
    left = _output([*engine.command, "ps", "--all", "--format", "{{.ID}}"])
    assert left.split() == []


def processing_job(image: str, flags: list[str]) -> dict[str, Any]:
    cluster = {"InstanceType": "ml.c5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
    output = {
        "S3Uri": "s3://bucket/shards",
        "LocalPath": "/opt/ml/processing/output/shards",
        "S3UploadMode": "EndOfJob",
    }
    return {
        "ProcessingJobName": "download",
        "RoleArn": "arn:aws:iam::123456789012:role/local",
        "ProcessingResources": {"ClusterConfig": cluster},
        "AppSpecification": {
            "ImageUri": image,
            "ContainerEntrypoint": [*ENTRY_POINT, "download"],
            "ContainerArguments": flags,
        },
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "shards", "S3Output": output}]},
    }


def _ended(sagemaker: Any, job: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + 300
    while time.monotonic() < deadline_s:
        about: dict[str, Any] = sagemaker.describe_processing_job(ProcessingJobName=job)
        if about["ProcessingJobStatus"] != "InProgress":
            return about
        time.sleep(0.5)
    raise AssertionError("the job does not end")


@contextmanager
def serving(engine: Engine, image: str, folder: Path, settings: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {f"SERVE_{name}": value for name, value in settings.items()}
    environment |= {"SAGEMAKER_BIND_TO_PORT": str(port), "OMP_NUM_THREADS": "1"}
    flags = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    command = engine.run(image, "serve", folder=folder)
    where = command.index(image)
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command[:where], *flags, *command[where:]], stdout=log, stderr=log)
        try:
            _wait_until_healthy(f"http://127.0.0.1:{port}/ping", process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(log.read_text(encoding="utf-8")[-2000:])


def _output(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def _open_to_all(folder: Path) -> None:
    """Let the container's user read and write, as SageMaker's root could."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)


def write_base(path: Path) -> None:
    """Write the file system of an image that holds this Python, a shell and the libraries that the two load."""
    prefix = Path(sys.base_prefix)
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = (prefix / "bin" / Path(library).name).resolve()
    programs = [interpreter, *(Path(found) for name in TOOLS if (found := shutil.which(name)))]
    modules = [*programs, *(prefix / library / "lib-dynload").glob("*.so")]
    files = {*programs, *(loaded for module in modules for loaded in _loaded_by(module))}
    with tarfile.open(path, "w") as tar:
        for file in sorted(files):
            tar.add(file.resolve(), arcname=str(file).lstrip("/"))
        tar.add(prefix / library, arcname=str(prefix / library).lstrip("/"), filter=_without_packages)
        _add_link(tar, "usr/bin/python", str(interpreter))
        _add_link(tar, "bin", "usr/bin")
        _add_file(tar, "etc/passwd", "root:x:0:0::/root:/bin/sh\nsteps:x:1000:1000::/tmp:/bin/sh\n")
        _add_file(tar, str(prefix / library / "site-packages" / "host.pth").lstrip("/"), SITE + "\n")
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)


def _loaded_by(program: Path) -> list[Path]:
    printed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return [Path(name) for name in re.findall(r"(/\S+) \(0x", printed)]


def _without_packages(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    packages = "/site-packages/" in member.name and "/site-packages/pip" not in member.name
    unused = re.search(r"/(tests?|idlelib|lib2to3|tkinter|__pycache__)(/|$)|\.a$", member.name)
    return None if packages or unused else member


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    tar.addfile(link)


def _add_file(tar: tarfile.TarFile, name: str, text: str) -> None:
    file = tarfile.TarInfo(name)
    file.size = len(text)
    tar.addfile(file, io.BytesIO(text.encode()))
