"""Starts the ranks of this host: torchrun's agent, in this process, once every host of the job is there.

Each rank is the same program again, `python -m steps train` or `probe`, with the variables that torchrun sets. Writes
nothing but its ranks' error files, to a temporary folder. Before any rank starts, the hosts answer a roll call in the
store of the first one, which torchrun's agents then share: what would otherwise hang for an hour (a host that never
starts, a security group that lets nothing through) ends within the time that is allowed, with a line that names the
host, the interface and the port.
"""

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Final

from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from params.layout import ENTRY_POINT
from steps.container import Cluster
from steps.errors import StepError
from steps.network import HostPatience, over, unreachable, use_interface
from steps.training.ranks import first_error
from steps.training.stop import STOPPED_STATUS
from steps.training.watchdog import TORCHRUN_VARIABLE

STORE_TIMEOUT: Final = timedelta(seconds=60)
# Linux' own limit for connections that wait to be accepted: nobody accepts them, for a connection is the answer.
BACKLOG: Final = 4096
# The others read from the first host why it ends, before it does.
LINGER_S: Final = 2.0
PRESENT, REACHED, FAULT = "present", "reached", "fault"
# SageMaker gives a job 120 s from SIGTERM to SIGKILL: time for the last checkpoint.
SHUTDOWN_TIMEOUT_S: Final = 110
# All hosts have just met: what is left is torchrun's own start.
RENDEZVOUS_TIMEOUT_S: Final = 300


@contextmanager
def roll_call(cluster: Cluster, limit_s: float) -> Iterator[str]:
    """Yield the first host's address, its store open, once all hosts reach each other; StepError names the missing."""
    patience = HostPatience(cluster, limit_s)
    address = patience.for_head(cluster.rendezvous_port)
    try:
        store = _store(cluster, address)
        try:
            _meet(cluster, store, patience)
        except StepError as error:
            store.set(FAULT, str(error))
            if cluster.is_head:
                time.sleep(LINGER_S)
            raise
    except RuntimeError as error:
        raise StepError(
            f"host {cluster.hosts[0]} went away from {address}:{cluster.rendezvous_port}{over(cluster)} while the "
            f"hosts of the job met: see its log ({' '.join(str(error).split())[:200]})"
        ) from None
    yield address
    del store


def _meet(cluster: Cluster, store: Store, patience: HostPatience) -> None:
    """Say that this host is there, and return once every host is and has reached all others."""
    with socket.create_server(("", 0), backlog=BACKLOG) as listener:
        own = f"{patience.for_own_address()}:{listener.getsockname()[1]}"
        store.set(f"{PRESENT}/{cluster.current_host}", own)
        _wait_for_all(cluster, store, PRESENT, patience)
        _reach_all(cluster, store)
        store.set(f"{REACHED}/{cluster.current_host}", own)
        _wait_for_all(cluster, store, REACHED, patience)


def _wait_for_all(cluster: Cluster, store: Store, word: str, patience: HostPatience) -> None:
    """Return when every host has said a word. Raises StepError where one reports a fault."""
    while missing := [host for host in cluster.hosts if not store.check([f"{word}/{host}"])]:
        if store.check([FAULT]):
            raise StepError(store.get(FAULT).decode())
        verb = "has not come to" if word == PRESENT else "has not reached the others from"
        where = f"{cluster.hosts[0]}, port {cluster.rendezvous_port}{over(cluster)}"
        patience.pause(f"host {_listed(missing)} {verb} {where}")


def _store(cluster: Cluster, address: str) -> Store:
    # multi_tenant: torchrun's agent on this host then shares the server, in place of opening the port again.
    return TCPStore(
        address,
        cluster.rendezvous_port,
        is_master=cluster.is_head,
        timeout=STORE_TIMEOUT,
        wait_for_workers=False,
        multi_tenant=True,
    )


def _reach_all(cluster: Cluster, store: Store) -> None:
    """Connect to every other host. Raises StepError for the first one that cannot be reached."""
    for host in cluster.hosts:
        address, port = store.get(f"{PRESENT}/{host}").decode().rsplit(":", 1)
        problem = unreachable((address, int(port)))
        if problem:
            raise StepError(
                f"host {cluster.current_host} cannot reach host {host} at {address}:{port}{over(cluster)} ({problem}): "
                "the security group must let the job's hosts reach each other on every port"
            )


def _listed(hosts: Sequence[str], most: int = 8) -> str:
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more


def is_rank(environment: Mapping[str, str]) -> bool:
    """Return whether torchrun started this process."""
    return TORCHRUN_VARIABLE in environment


def launch_ranks(
    argv: Sequence[str],
    cluster: Cluster,
    ranks_per_host: int,
    job_name: str,
    host_wait_s: float,
    program: str = "train",
) -> int:
    """Run this host's ranks of `python -m steps PROGRAM ARGV`; StepError has the first failed one's reason."""
    use_interface(cluster, os.environ)
    with (
        roll_call(cluster, host_wait_s)
        if len(cluster.hosts) > 1
        else nullcontext(cluster.head_address) as head_address,
        tempfile.TemporaryDirectory(prefix="ranks-") as folder,
    ):
        config = LaunchConfig(
            min_nodes=len(cluster.hosts),
            max_nodes=len(cluster.hosts),
            nproc_per_node=ranks_per_host,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=job_name,
            rdzv_backend="static",
            rdzv_endpoint=f"{head_address}:{cluster.rendezvous_port}",
            rdzv_configs={"rank": cluster.rank, "timeout": RENDEZVOUS_TIMEOUT_S},
            max_restarts=0,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        )
        try:
            elastic_launch(config, sys.executable)(*ENTRY_POINT[1:], program, *argv)
        except SignalException:
            return _status({}, Path(folder))
        except ChildFailedError as error:
            return _status({rank: failure.exitcode for rank, failure in error.failures.items()}, Path(folder))
    return 0


def _status(statuses: Mapping[int, int], folder: Path) -> int:
    """Return the exit status of ranks that did not all end well, by their own; none: a signal stopped them."""
    recorded = first_error(folder)
    if recorded is not None and not recorded.is_consequence:
        raise StepError(f"rank {recorded.rank}: {recorded.message}") from None
    if not statuses:
        return STOPPED_STATUS
    killed = {rank: status for rank, status in statuses.items() if status < 0 and status != -signal.SIGTERM}
    if killed:
        rank, status = next(iter(killed.items()))
        hint = ", often for want of memory" if status == -signal.SIGKILL else ""
        raise StepError(f"rank {rank} was ended by {signal.Signals(-status).name}{hint}") from None
    if recorded is not None:
        raise StepError(f"rank {recorded.rank}: {recorded.message}; see the logs of the other hosts") from None
    if STOPPED_STATUS in statuses.values():
        return STOPPED_STATUS
    rank, status = next(iter(statuses.items()))
    raise StepError(f"rank {rank} ended with status {status}; see its log above") from None
