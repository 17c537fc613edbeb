"""The hosts of one job: their folders, logs and processes, and what their end means."""

from __future__ import annotations

import fnmatch
import hashlib
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from pipeline_definition.local import namespaces
from pipeline_definition.local.contract import LOOPBACK, HostGroupShape
from pipeline_definition.local.environment import cluster_environment, hostile_environment, job_environment
from pipeline_definition.local.errors import StepFailureError, StepStoppedError, TimeLimitError
from pipeline_definition.local.host_group import Host, HostGroup, Outcome
from pipeline_definition.local.job_logs import JobLogs, Metrics, archive_logs, last_lines
from pipeline_definition.local.jobs import INTERNAL_ERROR, namespace_tag
from pipeline_definition.local.namespaces import ForeignHost
from pipeline_definition.local.placement import Program, placed
from pipeline_definition.local.services import Services
from pipeline_definition.local.small_disk import small_disk
from pipeline_definition.local.stop_signal import StopSignal

# Signals that come from outside the program: on AWS, a host that is lost.
_LOST_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Exit status of a program that ended on SIGTERM: the request came from outside.
_ENDED_BY_SIGTERM = 128 + signal.SIGTERM
CAPACITY_ERROR = "SageMaker.CAPACITY_ERROR"
# As SageMaker words it: https://github.com/DIAGNijmegen/rse-grand-challenge/issues/2631
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
_ROOT_SWITCHES = ("foreign_hosts", "no_internet", "disk_mb")


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
        self._services, self._plan, self._cloud = services, plan, services.cloud
        for group in plan.groups:
            if any(fnmatch.fnmatchcase(group.instance_type, pattern) for pattern in self._cloud.no_capacity):
                raise StepFailureError(NO_CAPACITY, CAPACITY_ERROR)
        self.names: Sequence[str] = [host for group in plan.groups for host in group.hosts]
        self.folder = services.settings.jobs_dir / plan.name
        archive_logs(plan.log_dir)
        paths = {host: plan.log_dir / f"{host}.log" for host in self.names}
        self.logs = JobLogs(plan.log_group, plan.name, paths, metrics)
        for host in self.names:
            self.folder_of(host).mkdir(parents=True)
        wanted = [switch for switch in _ROOT_SWITCHES if getattr(self._cloud, switch)]
        self._is_foreign = bool(wanted) and namespaces.possible() and services.settings.engine is None
        if wanted and not self._is_foreign:
            self._say(f"local.cloud: {', '.join(wanted)} left out: this needs root, ip, unshare and --backend process")
        if self._is_foreign and self._cloud.disk_mb:
            for host in self.names:
                small_disk(self.folder_of(host), self._cloud.disk_mb)

    def folder_of(self, host: str) -> Path:
        """Return a host's SAGEMAKER_BASE_DIR."""
        return self.folder / host

    def interface_of(self, host: str) -> str:
        """Return the interface through which a host reaches the others."""
        number = self.names.index(host) + 1
        return namespaces.interface_of(number) if self._lives_apart else LOOPBACK

    def run(self, stop: StopSignal, tick: Callable[[], None]) -> None:
        """Run the job's processes to their end; `tick` is called while they run.

        Raises StepFailureError with the failure file's text or the last lines, TimeLimitError, or StepStoppedError.
        """
        stop.check()
        settings = self._services.settings
        with self._foreign_hosts() as foreign:
            hosts = self._hosts(foreign)
            group = HostGroup(self._plan.mark, hosts, settings.grace_s, self._plan.max_runtime_s)
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

    @property
    def _lives_apart(self) -> bool:
        return self._is_foreign and (self._cloud.foreign_hosts or self._cloud.no_internet)

    def _foreign_hosts(self) -> AbstractContextManager[list[ForeignHost]]:
        """Make the hosts' network namespaces; they reach this control plane and, as the internet, the pictures."""
        if not self._lives_apart:
            return nullcontext([])
        settings = self._services.settings
        pictures = settings.state / "world" / "port"
        online = pictures.is_file() and not self._cloud.no_internet
        ports = [urlsplit(self._services.url).port or 0, *([int(pictures.read_text("ascii"))] if online else [])]
        tag = namespace_tag(settings.state) + hashlib.sha256(self._plan.name.encode()).hexdigest()[:6]
        return namespaces.foreign_hosts(len(self.names), self.folder, tag, ports=ports)

    def _say(self, line: str) -> None:
        for file in self.logs.files.values():
            file.path.write_text(f"{line}\n", encoding="utf-8")

    def _hosts(self, foreign: Sequence[ForeignHost]) -> list[Host]:
        # Hosts of their own meet as on AWS: by their names, at the ports that the programs choose.
        meeting = {} if foreign else cluster_environment()
        source_dir = self._services.settings.source_dir
        at_once = len(self.names) * self._plan.parallel_jobs
        hosts = []
        for name in self.names:
            folder = self.folder_of(name)
            base = job_environment(self._services.url, source_dir, folder, at_once)
            environment = {**base, **meeting, **self._plan.environment, **hostile_environment(self._cloud)}
            host = Host(name, (), environment, folder, self.logs.files[name].path)
            hosts.append(placed(self._services.settings, self._plan.program, host, self._plan.mark))
        if foreign:
            pairs = zip(hosts, foreign, strict=True)
            hosts = [replace(host, argv=namespace.command(host.argv)) for host, namespace in pairs]
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
