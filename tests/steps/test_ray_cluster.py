"""Ray over hosts that are processes of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from steps import ray_cluster as module
from steps.container import Cluster
from steps.errors import StepError

PROGRAM = """
import json, os, sys, time
import ray
from steps.container import Container
from steps.ray_cluster import join, leading
cluster = Container().cluster()
if not cluster.is_head:
    join(cluster, "job")
    print("left")
    sys.exit(0)
with leading(cluster, "job"):
    nodes = [node for node in ray.nodes() if node["Alive"]]
    @ray.remote(num_cpus=0.5, scheduling_strategy="SPREAD")
    def where():
        time.sleep(0.2)
        return ray.get_runtime_context().get_node_id()
    used = set(ray.get([where.remote() for _ in range(4 * len(nodes))]))
    print(json.dumps({"nodes": len(nodes), "used": len(used)}), flush=True)
    if "fail" in sys.argv:
        raise RuntimeError("in the middle")
    if "stay" in sys.argv:
        time.sleep(600)
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def start(folder: Path, host: str, hosts: list[str], port: int, *flags: str) -> subprocess.Popen[str]:
    base = folder / host
    (base / "config").mkdir(parents=True)
    (base / "config" / "resourceconfig.json").write_text(json.dumps({"hosts": hosts, "current_host": host}))
    (folder / "program.py").write_text(PROGRAM)
    environment = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(base),
        "MASTER_ADDR": "127.0.0.1",
        "RAY_HEAD_PORT": str(port),
        "PYTHONPATH": str(Path(module.__file__).parent.parent),
    }
    command = [sys.executable, str(folder / "program.py"), *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def session_processes(folder: str) -> list[psutil.Process]:
    """Return processes of Ray whose session lies in a folder."""
    return [
        process for process in psutil.process_iter(["cmdline"]) if folder in " ".join(process.info["cmdline"] or [])
    ]


def wait_for_none(folder: str) -> list[psutil.Process]:
    deadline_s = time.monotonic() + 60
    while (left := session_processes(folder)) and time.monotonic() < deadline_s:
        time.sleep(0.5)
    return left


def test_hosts_work_together_and_all_end_with_the_head(tmp_path: Path) -> None:
    port, hosts = free_port(), ["algo-1", "algo-2"]
    other = start(tmp_path, "algo-2", hosts, port)
    head = start(tmp_path, "algo-1", hosts, port)
    output, errors = head.communicate(timeout=240)
    assert head.returncode == 0, errors
    assert json.loads(output.splitlines()[-1]) == {"nodes": 2, "used": 2}
    output, errors = other.communicate(timeout=120)
    assert (other.returncode, output.strip()) == (0, "left"), errors
    assert not wait_for_none(f"--address 127.0.0.1:{port}")


def test_a_head_that_fails_or_is_killed_leaves_no_process(tmp_path: Path) -> None:
    for mode, status in (("fail", 1), ("stay", -9)):
        folders = set(Path("/tmp").glob("ray-*"))
        head = start(tmp_path / mode, "algo-1", ["algo-1"], free_port(), mode)
        assert head.stdout is not None and head.stderr is not None
        with head.stdout, head.stderr:
            assert json.loads(head.stdout.readline())["nodes"] == 1
            mine = [folder for folder in set(Path("/tmp").glob("ray-*")) - folders if session_processes(str(folder))]
            if mode == "stay":
                head.kill()
            assert head.wait(120) == status
        for folder in mine:
            assert not wait_for_none(str(folder))


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
