"""What became of processes that a test ended."""

from collections.abc import Sequence

import psutil

from pipeline_definition.local.processes import is_alive


def outlive(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Return those that still live after so long; one that is dead and waits to be collected does not."""
    _, left = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in left if process.is_running() and is_alive(process.pid)]
