"""Starts the ranks of this host: torchrun's agent, in this process, over the hosts of the job.

Each rank is the same program again, `python -m steps train` or `probe`, with the variables that torchrun sets. Writes
nothing but its ranks' error files, to a temporary folder.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from params.layout import ENTRY_POINT
from steps.container import Cluster
from steps.errors import StepError
from steps.network import use_interface
from steps.training.rank_errors import first_error
from steps.training.roll_call import roll_call
from steps.training.stop import STOPPED_STATUS
from steps.training.watchdog import TORCHRUN_VARIABLE

# SageMaker gives a job 120 s from SIGTERM to SIGKILL: time for the last checkpoint.
SHUTDOWN_TIMEOUT_S: Final = 110
# All hosts have just met: what is left is torchrun's own start.
RENDEZVOUS_TIMEOUT_S: Final = 300


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
    """Run this host's ranks of `python -m steps PROGRAM ARGV`; return the exit status.

    SIGTERM reaches every rank. Raises StepError with the reason of the rank that failed first, or with the name of a
    host that is missing after `host_wait_s` seconds.
    """
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
