"""How fast the job's hosts exchange gradients: all-reduces over gloo and, between GPUs, over NCCL.

The hosts meet and start their ranks as Train does; the first rank of each host writes what it measured to --rank-file.
Reads what NCCL says of its network in the files that NCCL_DEBUG_FILE names. Writes that file alone.

Bandwidth is nccl-tests' bus bandwidth: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md
"""

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
import torch.distributed as dist

from params.files import write_text
from params.layout import TRAINERS_GROUP
from params.programs import ProbeArguments
from steps.container import Cluster
from steps.errors import StepError
from steps.network import over
from steps.probing.measurements import FIXES, Measurements
from steps.training.launch import launch_ranks
from steps.training.ranks import TIMEOUT_FACTOR, World, join_world, leave_world, ranks_per_host, record_error
from steps.training.utilisation import wait_for

COLLECTIVE_TIMEOUT_S: Final = 120.0
WARM_UPS: Final = 2
REPEATS: Final = 5
# The families whose hosts exchange gradients over EFA: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa.html
_EFA_FAMILY: Final = re.compile(r"ml\.p[4-9]")
_NETWORK: Final = re.compile(r"Using network (AWS Libfabric|\w+)|Selected [Pp]rovider is (\w+)")


def look_at_ranks(arguments: ProbeArguments, measurements: Measurements) -> None:
    """Have the hosts meet and exchange data; nothing where there is one rank in all."""
    cluster = measurements.container.cluster()
    if trainers := cluster.groups.get(TRAINERS_GROUP):
        if cluster.current_host not in trainers:
            return
        cluster = cluster.of_groups(TRAINERS_GROUP)
    ranks, kind = ranks_per_host(), measurements.container.instance_type
    if len(cluster.hosts) * ranks == 1:
        return
    measured: dict[str, Any] = {}
    with TemporaryDirectory(prefix="probe-") as folder:
        met = measurements.take("hosts", lambda: _met(arguments, cluster, ranks, Path(folder), measured))
    if met:
        measurements.take("gloo", lambda: f"{measured['gloo']:.2f} GB/s{over(cluster)}, TCP")
    if "nccl" in measured:
        measurements.take("nccl", lambda: _nccl(measured, cluster, kind))


def measure_as_rank(arguments: ProbeArguments, environment: Mapping[str, str]) -> int:
    """Exchange data as the rank that torchrun started; return the exit status."""
    try:
        world = join_world(environment, COLLECTIVE_TIMEOUT_S / TIMEOUT_FACTOR)
        measured = {"gloo": _bandwidth(world, arguments.message_mib, world.control, torch.device("cpu"))}
        if world.device.type == "cuda":
            measured["nccl"] = _bandwidth(world, arguments.message_mib, None, world.device)
        if world.local_rank == 0:
            write_text(Path(arguments.rank_file), json.dumps(measured))
        leave_world(world)
    except Exception as error:
        record_error(error, environment)
        return 1
    return 0


def _met(arguments: ProbeArguments, cluster: Cluster, ranks: int, folder: Path, measured: dict[str, Any]) -> str:
    """Start this host's ranks, which need all others, and read what they measured."""
    file = folder / "measured.json"
    os.environ |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET", "NCCL_DEBUG_FILE": f"{folder}/nccl.%h.%p"}
    argv = ["--rank-file", str(file), "--message-mib", str(arguments.message_mib)]
    began_s = time.monotonic()
    status = launch_ranks(argv, cluster, ranks, "probe", arguments.host_wait_s, program="probe")
    if status or not file.is_file():
        raise StepError(f"the ranks of this host ended with status {status}")
    measured |= json.loads(file.read_text(encoding="utf-8"))
    measured["network"] = _network(folder)
    hosts = f"{len(cluster.hosts)} hosts reach each other{over(cluster)}" if len(cluster.hosts) > 1 else "one host"
    return f"{hosts}, {ranks} ranks each; met and measured in {time.monotonic() - began_s:.0f} s"


def _bandwidth(world: World, message_mib: int, group: dist.ProcessGroup | None, device: torch.device) -> float:
    """Return GB/s of an all-reduce. Raises StepError where its sum is wrong."""
    message = torch.ones((message_mib << 20) // 4, device=device)
    for _ in range(WARM_UPS):
        dist.all_reduce(message, op=dist.ReduceOp.MAX, group=group)
    wait_for(device)
    began_s = time.monotonic()
    for _ in range(REPEATS):
        dist.all_reduce(message, op=dist.ReduceOp.MAX, group=group)
    wait_for(device)
    seconds = (time.monotonic() - began_s) / REPEATS
    dist.all_reduce(message, group=group)
    if not bool((message == world.size).all()):
        raise StepError(f"an all-reduce over {world.size} ranks gave a wrong sum")
    return 2 * (world.size - 1) / world.size * message.nbytes / seconds / 1e9


def _network(folder: Path) -> str:
    """Return the network that NCCL says it chose: EFA, TCP, or its own word; nothing where it says none."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("nccl.*"))]
    words = {word for text in texts for pair in _NETWORK.findall(text) for word in pair if word}
    if words & {"efa", "AWS Libfabric"}:
        return "EFA"
    return "TCP" if "Socket" in words else ", ".join(sorted(words))


def _nccl(measured: Mapping[str, Any], cluster: Cluster, instance_type: str) -> str:
    network = measured["network"] if len(cluster.hosts) > 1 else "inside the host"
    if len(cluster.hosts) > 1 and _EFA_FAMILY.match(instance_type) and network != "EFA":
        raise StepError(
            f"{measured['nccl']:.1f} GB/s over {network}, and {instance_type} has EFA. Fix: the training image needs "
            f"aws-ofi-nccl (AWS Deep Learning Containers have it), and {FIXES['nccl']}"
        )
    return f"{measured['nccl']:.1f} GB/s over {network}{over(cluster) if network == 'TCP' else ''}"
