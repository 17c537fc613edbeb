"""Ray over the hosts of one job: the first host leads, the others join and stay until it is done.

Reads the job's hosts from steps.container; writes Ray's session files under a short folder of /tmp (the paths of its
sockets may have 107 bytes) and removes them. Nothing is reported to anyone, there is no dashboard, and every process
ends with the job's.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from steps.container import Cluster
from steps.errors import StepError
from steps.network import HostPatience, head_address, over, own_address, unreachable

POLL_S: Final = 0.5
NODE_TRIES: Final = 3
NODE_START_TIMEOUT_S: Final = 120.0
# What `ray start` says when its node runs.
STARTED: Final = b"Ray runtime started"
MAX_SAID_BYTES: Final = 1 << 16
# The head is gone when this many polls in a row find no one there.
MISSED_POLLS: Final = 4
OBJECT_STORE_FRACTION: Final = 0.3
LOOPBACK: Final = "127.0.0.1"
MIN_OBJECT_STORE_BYTES: Final = 100 << 20
MIN_SHARED_MEMORY_BYTES: Final = 256 << 20

_SHARED_MEMORY = Path("/dev/shm")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # A busy host is slow to start, not broken.
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    # Ray's own default, 15, starves workers beside any other load of the host.
    "RAY_worker_niceness": "0",
}


@contextmanager
def leading(
    cluster: Cluster, job_name: str, host_wait_s: float, lends: bool = True, gpus: int | None = None
) -> Iterator[None]:
    """Start Ray on the first host, wait for the others, and end all of it on the way out.

    Without `lends`, nothing runs on this host; `gpus` are those that it lends (None: all that Ray finds). Raises
    StepError that names the hosts which have not joined after `host_wait_s` seconds.
    """
    patience = HostPatience(cluster, host_wait_s)
    os.environ.update(_environment(cluster, job_name))
    import ray

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    address = patience.for_own_address() if len(cluster.hosts) > 1 else LOOPBACK
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=address,
            resources=_mark(cluster.current_host),
            _temp_dir=folder,
            **_object_store(folder),
            num_cpus=None if lends else 0,
            num_gpus=gpus if lends else 0,
        )
        _wait_for_hosts(ray, cluster, address, patience)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def join(cluster: Cluster, job_name: str, host_wait_s: float, lends: bool = True, gpus: int | None = None) -> None:
    """Lend this host to the head until the head ends; arguments as `leading` has them.

    Raises StepError where the head does not answer for `host_wait_s` seconds, or this host's node ends again and again.
    """
    head = (HostPatience(cluster, host_wait_s).for_head(cluster.ray_port), cluster.ray_port)
    for _ in range(NODE_TRIES):
        # On the head, ray.init turns tokens on by itself, and only then tells its own native part of it.
        environment = os.environ | _environment(cluster, job_name) | {"RAY_AUTH_MODE": "token"}
        flags = [] if lends else ["--num-cpus", "0"]
        flags += [] if lends and gpus is None else ["--num-gpus", str(gpus or 0)]
        status = _stay([*_start_command(cluster, head), *flags], head, environment)
        if status is None:
            return
    raise StepError(f"ray: the node of this host ended {NODE_TRIES} times, the last with status {status}")


@contextmanager
def visiting(cluster: Cluster) -> Iterator[None]:
    """Connect a process of a host that leads or has joined; it keeps its own way with SIGTERM, which Ray would take."""
    import ray

    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    os.environ["RAY_AUTH_MODE"] = "token"
    ray.init(address=f"{head_address(cluster)}:{cluster.ray_port}", log_to_driver=False, logging_level=logging.ERROR)
    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _stay(command: list[str], head: tuple[str, int], environment: dict[str, str]) -> int | None:
    """Run this host's node until the head is gone; return its status where it ends before."""
    with _turn() if head[0].startswith("127.") else contextlib.nullcontext(), tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=said,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        _wait_for_start(process, said)
    missed = 0
    try:
        while missed < MISSED_POLLS:
            missed = missed + 1 if unreachable(head) else 0
            if process.poll() is not None and missed == 0:
                return process.returncode
            time.sleep(POLL_S)
        return None
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


@contextmanager
def _turn() -> Iterator[None]:
    """Let the hosts of one machine start their nodes one after another: two at once choose the same socket's name."""
    with Path(tempfile.gettempdir(), f"ray-start-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait_for_start(process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    """Wait until a node says that it runs, or has ended, or takes too long for others to wait."""
    deadline_s = time.monotonic() + NODE_START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        if STARTED in os.pread(said.fileno(), MAX_SAID_BYTES, 0):
            return
        time.sleep(POLL_S / 5)


def _environment(cluster: Cluster, job_name: str) -> dict[str, str]:
    """Return Ray's settings, and the token without which it answers no one.

    Hosts of a job share no secret unless RAY_AUTH_TOKEN holds one: theirs is derived from the job's name, which keeps
    other jobs out; strangers are kept out by the security group. A single host's token is random.
    """
    token = os.environ.get("RAY_AUTH_TOKEN")
    if len(cluster.hosts) == 1:
        return {**_ENVIRONMENT, "RAY_AUTH_TOKEN": token or secrets.token_hex(32)}
    shared = hashlib.sha256(f"{job_name}\n{cluster.hosts}".encode()).hexdigest()
    return {**_ENVIRONMENT, "RAY_AUTH_TOKEN": token or shared, "RAY_GCS_SERVER_PORT": str(cluster.ray_port)}


def _start_command(cluster: Cluster, head: tuple[str, int]) -> list[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--address", f"{head[0]}:{head[1]}", "--dashboard-agent-listen-port", "0"]
    command += ["--resources", json.dumps(_mark(cluster.current_host))]
    if head[0].startswith("127."):
        # Several hosts on one machine: ports that no other node has taken.
        return [*command, "--node-ip-address", head[0], "--min-worker-port", "0", "--max-worker-port", "0"]
    return [*command, "--node-ip-address", own_address(cluster)]


def _wait_for_hosts(ray: Any, cluster: Cluster, address: str, patience: HostPatience) -> None:
    marks = {mark: host for host in cluster.hosts for mark in _mark(host)}
    while True:
        there = {mark for node in ray.nodes() if node["Alive"] for mark in node["Resources"]}
        missing = [host for mark, host in marks.items() if mark not in there]
        if not missing:
            return
        patience.pause(f"host {', '.join(missing)} did not join {address}:{cluster.ray_port}{over(cluster)}")


def _mark(host: str) -> dict[str, float]:
    """Return the resource that says in Ray's list of nodes which host one is: addresses may be the same."""
    return {f"host:{host}": 1.0}


def _object_store(folder: str) -> dict[str, Any]:
    """Return how large the object store is, and where: containers may have 64 MB of shared memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    wanted = max(MIN_OBJECT_STORE_BYTES, int(total * OBJECT_STORE_FRACTION))
    if not _SHARED_MEMORY.is_dir():
        return {"object_store_memory": wanted}
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free < MIN_SHARED_MEMORY_BYTES:
        os.environ["RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"] = "1"
        return {"object_store_memory": wanted, "_plasma_directory": folder}
    return {"object_store_memory": min(wanted, int(free * 0.9))}


def _die_with_parent() -> None:
    """Have the kernel end this process with its parent, however that ends (PR_SET_PDEATHSIG is 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
