"""What a job's process finds in its environment, and free ports for it."""

import functools
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from params.cloud import Cloud
from params.files import import_path
from params.layout import BASE_DIR_VARIABLE, INSTANCE_TYPE_VARIABLE
from pipeline_definition.jobs.request_shapes import service_model
from pipeline_definition.local.settings import ACCOUNT, CREDENTIALS, HOST, REGION, ROLE_KEY, SOURCE_DIR

# All that a job inherits from whoever started the control plane: like a container, it sees nothing else.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH")
_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "DYLD_", "COVERAGE_", "SSL_CERT_")
_BACKLOG = 4
_silent: list[socket.socket] = []


def aws_environment(url: str) -> dict[str, str]:
    """Return what points boto3, s3fs and the SageMaker SDK to the control plane."""
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def job_environment(url: str, folder: Path, hosts_at_once: int, own: Mapping[str, str], cloud: Cloud) -> dict[str, str]:
    """Return the environment of a host: AWS, the contract's folder, threads, the job's own, and what `cloud` changes.

    The number of threads depends on the job alone, never on what else runs: it changes the last bits of results.
    """
    threads = max(1, (os.cpu_count() or 1) // max(1, hosts_at_once))
    return {
        **{name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_PREFIXES)},
        **aws_environment(url),
        **import_path(SOURCE_DIR),
        "PYTHONUNBUFFERED": "1",
        BASE_DIR_VARIABLE: str(folder),
        "OMP_NUM_THREADS": str(threads),
        # Threads that spin while they wait for each other starve each other where anything else runs: with this the
        # same evaluation took 69 s in place of 301 s on two shared cores, and gave the same bytes.
        "OMP_WAIT_POLICY": "passive",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "HF_HUB_OFFLINE": "1",
        **own,
        **_hostile_environment(cloud),
    }


def _hostile_environment(cloud: Cloud) -> dict[str, str]:
    """Return what the switches of `local.cloud:` change of it; the jobs' role has a key of its own."""
    environment = {"AWS_ACCESS_KEY_ID": ROLE_KEY}
    if cloud.hidden_gpus:
        environment |= {"CUDA_VISIBLE_DEVICES": "-1", INSTANCE_TYPE_VARIABLE: cloud.hidden_gpus}
    for service in cloud.missing_endpoints:
        name = service_model(service).service_id
        environment[f"AWS_ENDPOINT_URL_{name.replace(' ', '_').upper()}"] = silent_address()
    return environment


@functools.cache
def silent_address() -> str:
    """Return an address at which a connection is neither taken nor refused, as behind a missing interface endpoint."""
    listener = socket.create_server((HOST, 0), backlog=0)
    port = listener.getsockname()[1]
    waiting = []  # connections that nobody takes: behind them, Linux drops what asks for one
    for _ in range(_BACKLOG):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex((HOST, port))
    _silent.extend((listener, *waiting))
    return f"http://{HOST}:{port}"


def cluster_environment() -> dict[str, str]:
    """Return where the hosts of one job meet: their names do not resolve, and several jobs run at once."""
    master_port, ray_port = free_ports(2)
    return {"MASTER_ADDR": HOST, "MASTER_PORT": str(master_port), "RAY_HEAD_PORT": str(ray_port)}


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"
