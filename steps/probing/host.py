"""What the host itself can do: its driver and GPUs, its interface, its disk.

Reads the driver, torch, the job's resources and the names of this host; writes a file to the job's disk and deletes it.
"""

import importlib.util
import os
import shutil
import socket
import time
from typing import Final

from params.instances import has_gpus
from params.programs import ProbeArguments
from steps.container import Container
from steps.device import choose_device, driver_version, gpu_count
from steps.errors import StepError
from steps.network import own_address
from steps.probing.measurements import Measurements

# What a file system and its reserve take of a volume.
USABLE: Final = 0.85
BLOCK_BYTES: Final = 4 << 20


def has_torch() -> bool:
    """Return whether the image can compute: that of Download cannot."""
    return importlib.util.find_spec("torch") is not None


def look_at_host(arguments: ProbeArguments, measurements: Measurements) -> None:
    container = measurements.container
    if measurements.take("driver", lambda: _driver(container)) and has_torch():
        measurements.take("gpus", lambda: _gpus(container, arguments))
    measurements.take("interface", lambda: _interface(container))
    measurements.take("disk", lambda: _disk(container, arguments))


def _driver(container: Container) -> str:
    if not has_torch():
        if has_gpus(container.instance_type):
            raise StepError(f"{container.instance_type} has GPUs, and this image has no torch to use them")
        return "this image has no torch, and its step computes without"
    import torch

    if gpu_count(container) is None:
        return f"no GPU on {container.instance_type or 'this host'}: torch {torch.__version__} on the CPU"
    return f"driver {driver_version()}, torch {torch.__version__} built for CUDA {torch.version.cuda}"


def _gpus(container: Container, arguments: ProbeArguments) -> str:
    import torch

    name, count = container.instance_type, gpu_count(container) or 0
    expected = dict(item.rsplit("=", 1) for item in arguments.gpus).get(name, "0")
    if count != int(expected) and has_gpus(name):
        raise StepError(f"torch counts {count} GPUs, and {name} has {expected}")
    for index in range(count):
        choose_device(container, index)
    if not count:
        return f"none, as {name or 'this host'} has"
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{count} x {torch.cuda.get_device_name(0)}, {gib:.0f} GiB each, every one computes"


def _interface(container: Container) -> str:
    """Return by which name and address this host goes. Its own name is looked up to say what it is, and never used."""
    cluster, own_name = container.cluster(), socket.gethostname()
    try:
        resolved = socket.gethostbyname(own_name)
    except OSError:
        resolved = "nothing"
    text = f"host {own_name} ({cluster.current_host}), whose name resolves to {resolved}"
    if len(cluster.hosts) == 1:
        return f"{text}; the only host of its job"
    address = own_address(cluster)
    text = f"{text}; {cluster.interface or 'an interface that the job does not name'} at {address}"
    if resolved == address or (cluster.interface and address.startswith("127.")):
        return text
    kept = "nothing to do: the hosts of a job use the interface that resourceconfig.json names, never the host's name"
    named = "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, for the job names no interface"
    return f"{text}. Fix: {kept if cluster.interface else named}"


def _disk(container: Container, arguments: ProbeArguments) -> str:
    folder = container.base_dir if container.base_dir.is_dir() else container.base_dir.parent
    total_gb = shutil.disk_usage(folder).total / 1e9
    if total_gb < USABLE * arguments.volume_gb:
        raise StepError(f"{folder} has {total_gb:.1f} GB, and the step asks for {arguments.volume_gb} GB")
    path, block = folder / f".probe-{os.getpid()}", os.urandom(BLOCK_BYTES)
    count = max(1, (arguments.disk_mib << 20) // BLOCK_BYTES)
    began_s = time.monotonic()
    try:
        with path.open("wb") as file:
            for _ in range(count):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
    speed = count * BLOCK_BYTES / 1e6 / (time.monotonic() - began_s)
    asked = f", of which the step asks for {arguments.volume_gb}" if arguments.volume_gb else ""
    return f"{total_gb:,.0f} GB{asked}; writes {speed:,.0f} MB/s"
