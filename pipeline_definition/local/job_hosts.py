"""The hosts of one job: their folders, logs and processes, and what their end means."""

import fnmatch
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from params.cloud import Cloud
from params.layout import BASE_DIR
from pipeline_definition.local.container_engine import Program
from pipeline_definition.local.contract import host_groups, resource_config
from pipeline_definition.local.environment import arn, cluster_environment, job_environment
from pipeline_definition.local.errors import (
    CAPACITY_ERROR,
    INTERNAL_ERROR,
    StepFailureError,
    StepStoppedError,
    TimeLimitError,
)
from pipeline_definition.local.host_group import Host, Outcome, run_hosts
from pipeline_definition.local.job_logs import LOG_GROUPS, JobLogs, Metrics, archive_logs, last_lines
from pipeline_definition.local.records import Record
from pipeline_definition.local.services import Services
from pipeline_definition.local.stop_signal import StopSignal

# Signals that come from outside the program: on AWS, a host that is lost.
_LOST_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Exit status of a program that ended on SIGTERM: the request came from outside.
_ENDED_BY_SIGTERM = 128 + signal.SIGTERM
# As SageMaker words it: https://github.com/DIAGNijmegen/rse-grand-challenge/issues/2631
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
_ARN_VARIABLES = {"processing-job": "PROCESSING_JOB_ARN", "training-job": "TRAINING_JOB_ARN"}


@dataclass(frozen=True)
class RunningJob:
    kind: str
    """As in its ARN: training-job."""
    name: str
    request: Mapping[str, Any]
    log_dir: Path
    stop: StopSignal
    parallel_jobs: int = 1
    """How many jobs of this shape run at once: trials of a search."""


def require_capacity(cloud: Cloud, instance_type: str) -> None:
    """Raise StepFailureError where `local.cloud:` says that there is no host of this type."""
    if any(fnmatch.fnmatchcase(instance_type, pattern) for pattern in cloud.no_capacity):
        raise StepFailureError(NO_CAPACITY, CAPACITY_ERROR)


class JobHosts:
    def __init__(
        self, services: Services, job: RunningJob, program: Program, resources: Record, metrics: Metrics | None = None
    ) -> None:
        """Make the folders and logs of the hosts that a ResourceConfig or ClusterConfig asks for."""
        self._services, self._job, self._program, self._cloud = services, job, program, services.cloud
        self._mark = f"{services.settings.mark}{job.name}/"
        self._groups = host_groups(resources, self._cloud.hidden_gpus)
        for group in self._groups:
            require_capacity(self._cloud, group["instance_type"])
        self.names: Sequence[str] = [host for group in self._groups for host in group["hosts"]]
        self.folder = services.settings.folder("jobs") / job.name
        archive_logs(job.log_dir)
        paths = {host: job.log_dir / f"{host}.log" for host in self.names}
        self._logs = JobLogs(LOG_GROUPS[job.kind], job.name, paths, metrics)
        for host in self.names:
            self.folder_of(host).mkdir(parents=True)

    def folder_of(self, host: str) -> Path:
        return self.folder / host

    def resources_of(self, host: str) -> dict[str, Any]:
        return resource_config(self._groups, host)

    def run(self, tick: Callable[[], None]) -> None:
        """Run the job's processes to their end, calling `tick` meanwhile.

        Raises StepFailureError with the failure file's text or the last lines, TimeLimitError, or StepStoppedError.
        """
        limit_s = (self._job.request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds")

        def tick_all() -> None:
            self._logs.pump()
            tick()

        self._job.stop.check()
        outcome = run_hosts(self._services.settings, self._mark, self._hosts(), self._job.stop, tick_all, limit_s)
        self._logs.pump(final=True)
        if outcome.cause == "stopped" or (outcome.cause == "orphaned" and self._job.stop.is_set):
            raise StepStoppedError
        if outcome.cause == "timeout":
            raise TimeLimitError(f"MaxRuntimeExceeded: the job ran longer than {limit_s:g} s")
        if outcome.first_failed is not None:
            raise self._failure(outcome.first_failed, outcome)
        if outcome.cause != "finished":
            raise StepFailureError(f"InternalServerError: the job's supervisor {outcome.cause}", INTERNAL_ERROR)

    def _hosts(self) -> list[Host]:
        settings, job = self._services.settings, self._job
        own = {
            **cluster_environment(),
            **(job.request.get("Environment") or {}),
            _ARN_VARIABLES[job.kind]: arn(job.kind, job.name),
        }
        if job.kind == "training-job":
            own["TRAINING_JOB_NAME"] = job.name
        at_once = len(self.names) * job.parallel_jobs
        hosts = []
        for name in self.names:
            folder = self.folder_of(name)
            environment = job_environment(self._services.url, folder, at_once, own, self._cloud)
            argv = settings.command(self._program, environment, folder, self._mark)
            hosts.append(Host(name, argv, environment, folder, self._logs.files[name].path))
        return hosts

    def _failure(self, host: str, outcome: Outcome) -> StepFailureError:
        log, code = self._logs.files[host].path, outcome.codes.get(host, 0)
        files = [self.folder_of(name) / "output" / "failure" for name in (host, *self.names)]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
        text = texts[0].strip()[:800] if texts else ""
        where = f"{host}; log: {log}"
        if outcome.error:
            return StepFailureError(f"ClientError: cannot run {self._program}: {outcome.error}")
        if not text and (-code in _LOST_SIGNALS or code == _ENDED_BY_SIGTERM):
            name = signal.Signals(-code).name if code < 0 else signal.SIGTERM.name
            return StepFailureError(f"InternalServerError: the host was lost ({name}) ({where})", INTERNAL_ERROR)
        if f"'{BASE_DIR}/" in last_lines(log):
            where += f"; {BASE_DIR} has here what the job has: --backend docker or podman runs the image itself"
        status = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit code: {code}"
        return StepFailureError(f"AlgorithmError: {text or last_lines(log)}, {status} ({where})")
