"""Ray on one host; over several hosts it is tested where programs use it (test_download)."""

import json
import os
import queue
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from params.programs import TrainArguments
from steps import ray_cluster as module
from steps.container import Cluster, Container
from steps.errors import StepError
from steps.network import HostPatience
from steps.training import online
from tests.processes import outlive
from tests.steps import namespaces

PROGRAM = """
import json
import psutil, ray
from steps.container import Container
from steps.ray_cluster import leading
with leading(Container().cluster(), "job", 60):
    family = [process.pid for process in psutil.Process().children(recursive=True)]
    print(json.dumps({"family": family, "folder": ray._private.worker._global_node.get_temp_dir_path()}), flush=True)
    raise RuntimeError("in the middle")
"""

SHARED = """
from steps.container import Container
from steps.ray_cluster import join, leading
cluster = Container().cluster()
if not cluster.is_head:
    join(cluster, "job", 120)
    raise SystemExit(0)
with leading(cluster, "job", 120):
    import ray
    @ray.remote(num_cpus=0)
    def address():
        return ray.util.get_node_ip_address()
    asked = [address.options(resources={f"host:{host}": 1}).remote() for host in cluster.hosts]
    print("hosts", ray.get(asked), flush=True)
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


def test_a_head_that_does_not_answer_is_named_with_interface_and_port() -> None:
    port = free_port()
    cluster = Cluster(("algo-1", "algo-2"), "algo-2", "127.0.0.1", 1, port, interface="lo")
    message = f"host algo-1 does not answer at 127.0.0.1:{port} over interface lo .Connection refused. in 0 s"
    with pytest.raises(StepError, match=message):
        module.join(cluster, "job", 0.2)


def test_a_host_that_does_not_join_is_named() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 1.0, **module._mark("algo-1"), **module._mark("algo-3")}}]
    nodes.append({"Alive": False, "Resources": module._mark("algo-2")})
    ray = type("Ray", (), {"nodes": staticmethod(lambda: nodes)})
    cluster = Cluster(("algo-1", "algo-2", "algo-3"), "algo-1", "algo-1", 1, 6379, interface="eth0")
    with pytest.raises(StepError, match=r"host algo-2 did not join 10.0.0.1:6379 over interface eth0"):
        module._wait_for_hosts(ray, cluster, "10.0.0.1", HostPatience(cluster, -1.0))


@pytest.mark.skipif(not namespaces.possible(), reason="network namespaces need root, ip and unshare")
@pytest.mark.parametrize("interface", [False, True], ids=["processing job", "training job"])
def test_two_hosts_whose_own_names_are_loopback_share_one_ray(tmp_path: Path, interface: bool) -> None:
    """A processing job's resourceconfig.json names no interface."""
    (tmp_path / "program.py").write_text(SHARED)
    root = str(Path(module.__file__).parent.parent)
    with namespaces.foreign_hosts(2, tmp_path, f"sdt{os.getpid()}-", own_name="127.0.1.1") as hosts:
        processes, logs = [], []
        for host in hosts:
            config = tmp_path / host.name / "config"
            config.mkdir(parents=True)
            about = {"hosts": ["algo-1", "algo-2"], "current_host": host.name}
            more = {"network_interface_name": host.interface} if interface else {}
            (config / "resourceconfig.json").write_text(json.dumps(about | more))
            environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(config.parent), "PYTHONPATH": root}
            logs.append(tmp_path / f"log-{host.name}")
            with logs[-1].open("wb") as log:
                command = host.command([sys.executable, "program.py"])
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path))
        try:
            statuses = [process.wait(150) for process in processes]
        finally:
            for process in processes:
                process.kill()
        said = "\n".join(log.read_text() for log in logs)
        assert statuses == [0, 0], said
        assert f"hosts {[host.address for host in hosts]}" in said


def test_a_node_that_ends_again_and_again_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_start_command", lambda cluster, head: [sys.executable, "-c", "raise SystemExit(3)"])
    with socket.create_server(("127.0.0.1", 0)) as head:
        cluster = Cluster(("algo-1", "algo-2"), "algo-2", "127.0.0.1", 1, head.getsockname()[1])
        with pytest.raises(StepError, match="ended 3 times, the last with status 3"):
            module.join(cluster, "job", 10)


def test_little_shared_memory_moves_the_object_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = type("Usage", (), {"free": 64 << 20})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(module, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "0")
    assert module._object_store("/tmp/ray-x")["_plasma_directory"] == "/tmp/ray-x"
    usage.free = 1 << 30
    found = module._object_store("/tmp/ray-x")
    assert "_plasma_directory" not in found and found["object_store_memory"] <= 1 << 30


@pytest.mark.parametrize(
    ("lent", "flags"),
    [({}, []), ({"gpus": 4}, ["--num-gpus", "4"]), ({"lends": False}, ["--num-cpus", "0", "--num-gpus", "0"])],
)
def test_a_host_joins_with_what_it_lends(
    lent: dict[str, int], flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(module, "_stay", lambda command, *_: commands.append(command))
    monkeypatch.setattr(HostPatience, "for_head", lambda *_: "127.0.0.1")
    module.join(Cluster(("a", "b"), "b", "127.0.0.1", 1, 2), "job", 1, **lent)
    [command] = commands
    assert command[command.index("--max-worker-port") + 2 :] == flags


def test_a_second_trainer_lends_nothing_to_its_encoders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    joined: queue.Queue[dict[str, object]] = queue.Queue()
    monkeypatch.setattr(online, "join", lambda cluster, **lent: joined.put(lent))
    (tmp_path / "input" / "config").mkdir(parents=True)
    groups = [("trainers", ["a", "b"]), ("encoders", ["c"])]
    config = {
        "hosts": ["a", "b", "c"],
        "current_host": "b",
        "current_group_name": "trainers",
        "instance_groups": [
            {"instance_group_name": name, "instance_type": "ml.c5.large", "hosts": of} for name, of in groups
        ],
    }
    (tmp_path / "input" / "config" / "resourceconfig.json").write_text(json.dumps(config))
    arguments = TrainArguments.model_construct(host_wait_s=1.0)
    with online.encoders(arguments, Container({"SAGEMAKER_BASE_DIR": str(tmp_path)})):
        assert joined.get(timeout=10)["lends"] is False
