"""Finds every process of a job by the mark that it inherited in its environment.

torchrun, Ray and shells start sessions of their own, so neither the process group nor the parent finds all of them.
"""

import contextlib
import time

import psutil

JOB_MARK = "SD_PIPELINE_LOCAL_JOB"


def marked(mark: str) -> list[psutil.Process]:
    """Return the live processes whose mark begins with `mark`."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(JOB_MARK, "").startswith(mark) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def kill_marked(mark: str, timeout_s: float = 5.0) -> None:
    """Kill every process with this mark, and those that they start meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and (processes := marked(mark)):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)  # not psutil's wait: it would take a child's exit status from its parent's hands


def is_alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
