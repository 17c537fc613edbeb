"""The hosts of one job: their folders, logs and processes, and what their end means."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_definition.local.contract import HostGroupShape
from pipeline_definition.local.environment import cluster_environment, job_environment
from pipeline_definition.local.errors import StepFailureError, StepStoppedError, TimeLimitError
from pipeline_definition.local.host_group import Host, HostGroup, Outcome
from pipeline_definition.local.job_logs import JobLogs, Metrics, archive_logs, last_lines
from pipeline_definition.local.jobs import INTERNAL_ERROR
from pipeline_definition.local.placement import Program, placed
from pipeline_definition.local.services import Services
from pipeline_definition.local.stop_signal import StopSignal

# Signals that come from outside the program: on AWS, a host that is lost.
_LOST_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What a program that was asked to stop, and did, exits with: it did not ask itself.
_ENDED_BY_SIGTERM = 128 + signal.SIGTERM


@dataclass(frozen=True)
class JobPlan:
    """What the hosts of a job run."""

    name: str
    mark: str
    program: Program
    environment: Mapping[str, str]
    """On top of what every job has."""
    groups: tuple[HostGroupShape, ...]
    log_group: str
    log_dir: Path
    max_runtime_s: float | None
    parallel_jobs: int = 1
    """How many jobs of this shape run at once: trials of a search."""


class JobHosts:
    """One job's hosts on this machine."""

    def __init__(self, services: Services, plan: JobPlan, metrics: Metrics) -> None:
        self._services, self._plan = services, plan
        self.names: Sequence[str] = [host for group in plan.groups for host in group.hosts]
        self.folder = services.settings.jobs_dir / plan.name
        archive_logs(plan.log_dir)
        paths = {host: plan.log_dir / f"{host}.log" for host in self.names}
        self.logs = JobLogs(plan.log_group, plan.name, paths, metrics)
        for host in self.names:
            self.folder_of(host).mkdir(parents=True)

    def folder_of(self, host: str) -> Path:
        """Return a host's SAGEMAKER_BASE_DIR."""
        return self.folder / host

    def run(self, stop: StopSignal, tick: Callable[[], None]) -> None:
        """Run the job's processes to their end; `tick` is called while they run.

        Raises StepFailureError with the failure file's text or the last lines, TimeLimitError, or StepStoppedError.
        """
        stop.check()
        settings = self._services.settings
        group = HostGroup(self._plan.mark, self._hosts(), settings.grace_s, self._plan.max_runtime_s)
        try:
            with stop.calling(group.stop):
                outcome = group.wait(lambda: self._tick(tick), settings.log_every_s)
        finally:
            if settings.engine is not None:
                settings.engine.remove(self._plan.mark)
        self.logs.pump(final=True)
        self._check(outcome, stop)

    def _tick(self, tick: Callable[[], None]) -> None:
        self.logs.pump()
        tick()

    def _hosts(self) -> list[Host]:
        meeting = cluster_environment()
        source_dir = self._services.settings.source_dir
        at_once = len(self.names) * self._plan.parallel_jobs
        hosts = []
        for name in self.names:
            folder = self.folder_of(name)
            base = job_environment(self._services.url, source_dir, folder, at_once)
            environment = {**base, **meeting, **self._plan.environment}
            host = Host(name, (), environment, folder, self.logs.files[name].path)
            hosts.append(placed(self._services.settings, self._plan.program, host, self._plan.mark))
        return hosts

    def _check(self, outcome: Outcome, stop: StopSignal) -> None:
        if outcome.cause == "finished":
            return
        if outcome.cause == "stopped" or (outcome.cause == "orphaned" and stop.is_set):
            raise StepStoppedError
        if outcome.cause == "timeout":
            raise TimeLimitError(f"MaxRuntimeExceeded: the job ran longer than {self._plan.max_runtime_s:g} s")
        host = outcome.first_failed
        if host is None:
            raise StepFailureError(f"InternalServerError: the job's supervisor {outcome.cause}", INTERNAL_ERROR)
        raise self._failure(host, outcome)

    def _failure(self, host: str, outcome: Outcome) -> StepFailureError:
        log, code = self.logs.files[host].path, outcome.codes.get(host, 0)
        text = self._failure_text([host, *self.names])
        where = f"{host}; log: {log}"
        if outcome.error:
            return StepFailureError(f"ClientError: cannot run {self._plan.program}: {outcome.error}")
        if not text and (-code in _LOST_SIGNALS or code == _ENDED_BY_SIGTERM):
            name = signal.Signals(-code).name if code < 0 else signal.SIGTERM.name
            return StepFailureError(f"InternalServerError: the host was lost ({name}) ({where})", INTERNAL_ERROR)
        status = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit code: {code}"
        return StepFailureError(f"AlgorithmError: {text or last_lines(log)}, {status} ({where})")

    def _failure_text(self, hosts: Sequence[str]) -> str:
        for host in hosts:
            path = self.folder_of(host) / "output" / "failure"
            if path.is_file():
                return path.read_text(encoding="utf-8", errors="replace").strip()[:800]
        return ""
