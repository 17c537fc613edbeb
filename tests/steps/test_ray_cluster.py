"""Ray on one host; over several hosts it is tested where programs use it (test_download)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from steps import ray_cluster as module
from steps.container import Cluster
from steps.errors import StepError
from tests.processes import outlive

PROGRAM = """
import json
import psutil, ray
from steps.container import Container
from steps.ray_cluster import leading
with leading(Container().cluster(), "job"):
    family = [process.pid for process in psutil.Process().children(recursive=True)]
    print(json.dumps({"family": family, "folder": ray._private.worker._global_node.get_temp_dir_path()}), flush=True)
    raise RuntimeError("in the middle")
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_a_head_that_fails_ends_all_it_started(tmp_path: Path) -> None:
    base = tmp_path / "algo-1"
    (base / "config").mkdir(parents=True)
    (base / "config" / "resourceconfig.json").write_text(json.dumps({"hosts": ["algo-1"], "current_host": "algo-1"}))
    (tmp_path / "program.py").write_text(PROGRAM)
    root = str(Path(module.__file__).parent.parent)
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "PYTHONPATH": root, "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1 and "RuntimeError: in the middle" in done.stderr
    told = json.loads(done.stdout.splitlines()[0])
    assert len(told["folder"]) < 40 and not Path(told["folder"]).exists()
    assert len(told["family"]) > 3
    started = [psutil.Process(pid) for pid in told["family"] if psutil.pid_exists(pid)]
    assert not outlive(started, 30)


def test_a_head_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT_S", 0.2)
    port = free_port()
    cluster = Cluster(("algo-1", "algo-2"), "algo-2", "127.0.0.1", 1, port)
    with pytest.raises(StepError, match=f"the head at 127.0.0.1:{port} did not answer"):
        module.join(cluster, "job")


def test_a_node_that_ends_again_and_again_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_start_command", lambda cluster, head: [sys.executable, "-c", "raise SystemExit(3)"])
    with socket.create_server(("127.0.0.1", 0)) as head:
        cluster = Cluster(("algo-1", "algo-2"), "algo-2", "127.0.0.1", 1, head.getsockname()[1])
        with pytest.raises(StepError, match="ended 3 times, the last with status 3"):
            module.join(cluster, "job")


def test_little_shared_memory_moves_the_object_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = type("Usage", (), {"free": 64 << 20})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(module, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "0")
    assert module._object_store("/tmp/ray-x")["_plasma_directory"] == "/tmp/ray-x"
    usage.free = 1 << 30
    found = module._object_store("/tmp/ray-x")
    assert "_plasma_directory" not in found and found["object_store_memory"] <= 1 << 30
