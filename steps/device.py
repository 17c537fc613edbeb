"""Where a job computes: on this host's GPUs or, only where there can be none, on its CPU.

Reads the job's instance type, the device files and the driver's version; writes nothing. A host that has GPUs which
torch cannot use ends its job in seconds: on its CPU the job would go on for days, at the GPUs' price.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from params.instances import has_gpus
from steps.container import Container
from steps.errors import StepError

if TYPE_CHECKING:
    import torch

DEVICES = Path("/dev")
DRIVER_FILE = Path("/proc/driver/nvidia/version")
# The oldest driver for each CUDA (minor version compatibility):
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/
OLDEST_DRIVERS: Final = {11: 450, 12: 525, 13: 580}
# What CUDA_VISIBLE_DEVICES says where somebody asks for the CPU.
NO_DEVICES: Final = ("", "-1")


def choose_device(container: Container | None = None, local_rank: int = 0) -> "torch.device":
    """Return a GPU of this host that computes, or the CPU of a host without. Raises StepError where its GPUs do not."""
    import torch

    if gpu_count(container) is None:
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    try:
        torch.cuda.set_device(device)
        # A GPU that this torch has no kernels for is there, and fails only now.
        (torch.zeros(1, device=device) + 1).item()
    except RuntimeError as error:
        raise StepError(_problem(_expected(container or Container(), os.environ), str(error))) from None
    return device


def device_names(container: Container | None = None) -> list[str]:
    """Return torch's names of every GPU of this host, or of its CPU. Raises StepError as `choose_device` does."""
    count = gpu_count(container)
    return ["cpu"] if count is None else [f"cuda:{index}" for index in range(count)]


def gpu_count(container: Container | None = None) -> int | None:
    """Return how many GPUs torch can use, None on a host without. Raises StepError where it can use none of them."""
    expected = _expected(container or Container(), os.environ)
    import torch

    # device_count asks the driver, which an old one answers, too; is_available asks CUDA.
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    if not expected:
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        said = "no CUDA devices"
    except (RuntimeError, AssertionError) as error:
        said = str(error)
    raise StepError(_problem(expected, said))


def gpus_to_lend(container: Container) -> int | None:
    """Return how many GPUs a host lends to Ray; None where nothing says that it has any, and Ray looks for itself.

    Raises StepError as `gpu_count` does. Imports torch only where there are GPUs.
    """
    return gpu_count(container) if _expected(container, os.environ) else None


def _expected(container: Container, environment: Mapping[str, str]) -> str:
    """Return what says that this host has GPUs; nothing where nothing does."""
    if has_gpus(container.instance_type):
        return container.instance_type
    if environment.get("CUDA_VISIBLE_DEVICES", "unset") in NO_DEVICES:
        return ""
    files = sorted(DEVICES.glob("nvidia*"))
    return f"{container.instance_type or 'this host'} with {files[0]}" if files else ""


def _problem(expected: str, said: str) -> str:
    import torch

    driver, cuda = driver_version(), torch.version.cuda
    return (
        f"{expected}: it has GPUs, and torch cannot use them: driver {driver or 'none'}, torch {torch.__version__} "
        f"built for CUDA {cuda or 'none'}, which says: {' '.join(said.split())[:300]}. Fix: {_fix(driver, cuda)}"
    )


def _fix(driver: str, cuda: str | None) -> str:
    if not cuda:
        return "use an image whose torch is built for CUDA (containers/build.sh), or a CPU instance type"
    oldest = OLDEST_DRIVERS.get(int(cuda.split(".")[0]), max(OLDEST_DRIVERS.values()))
    newer = (
        f"CUDA {cuda} needs driver {oldest} or newer: an endpoint gets one through endpoint.inference_ami_version, "
        "a job through a newer instance type; or build the image for an older CUDA"
    )
    if not driver:
        return f"{newer}; without a driver, start the job again, for the host is broken"
    if int(driver.split(".")[0]) < oldest:
        return newer
    return "choose an instance type whose GPUs this torch has kernels for, or start the job again on another host"


def driver_version() -> str:
    """Return the version of the NVIDIA driver, such as 470.57.02; nothing where there is none."""
    try:
        text = DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found.group(1) if found else ""
