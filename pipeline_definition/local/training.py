"""Training jobs: channels from S3 and FSx, a program on each host, a model and checkpoints to S3."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from params.layout import CHECKPOINT_DIR, MODEL_ARCHIVE
from pipeline_definition.local.archive import merged_files, write_archive
from pipeline_definition.local.contract import host_groups, local_path, resource_config, write_training_contract
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.folder_sync import FolderSync, pushing
from pipeline_definition.local.job_hosts import JobHosts, JobPlan
from pipeline_definition.local.job_logs import TRAINING_GROUP, Metrics
from pipeline_definition.local.jobs import INTERNAL_ERROR, Jobs
from pipeline_definition.local.placement import Program
from pipeline_definition.local.records import Record
from pipeline_definition.local.resolver import to_text
from pipeline_definition.local.services import Services
from pipeline_definition.local.small_disk import release_disks
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.storage import fetch_source

_INPUT_MODES = ("File", "FastFile")
_FILE_SYSTEM = "FileSystemDataSource"
# For so long the hosts of a spot job without checkpoints are left alone.
_SPOT_S = 2.0


@dataclass
class Patience:
    """How often a training job that lost its hosts restarts on others, from the checkpoints that reached S3.

    A managed spot job restarts until MaxWaitTimeInSeconds, any other as often as its RetryStrategy says.
    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_RetryStrategy.html
    """

    spot: bool
    """Its hosts may be taken away at any time."""
    give_up_s: float
    """Of a spot job: when it waits no longer, on the monotonic clock."""
    tries_left: int
    """Of any other job."""

    @classmethod
    def granted_by(cls, request: Mapping[str, Any]) -> Patience:
        """Read CreateTrainingJob's request."""
        wait_s = (request.get("StoppingCondition") or {}).get("MaxWaitTimeInSeconds") or 0
        tries = (request.get("RetryStrategy") or {}).get("MaximumRetryAttempts") or 0
        return cls(bool(request.get("EnableManagedSpotTraining")), time.monotonic() + wait_s, int(tries))

    def once_more(self) -> bool:
        """Return whether the job restarts, and count the restart."""
        if self.spot:
            return time.monotonic() <= self.give_up_s
        self.tries_left -= 1
        return self.tries_left >= 0


class TrainingJobs(Jobs):
    """All training jobs, the trials of searches among them."""

    kind, prefix, summary_members = "training-job", "TrainingJob", ("SecondaryStatus",)

    def __init__(self, services: Services) -> None:
        super().__init__(services, services.training_jobs)
        self._parallel_jobs: dict[str, int] = {}

    def new_record(self, request: Mapping[str, Any]) -> Record:
        """A training job's record also has its phase."""
        prefix = f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output"
        compressed = request["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP"
        return {
            "ModelArtifacts": {"S3ModelArtifacts": f"{prefix}/{MODEL_ARCHIVE if compressed else 'model/'}"},
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": time.time()}],
            "FinalMetricDataList": [],
        }

    def ended(self, cause: str) -> Record:
        """The phase says how the job ended, too."""
        return {"SecondaryStatus": cause, **super().ended(cause)}

    def run_trial(self, request: Mapping[str, Any], log_dir: Path, parent: StopSignal, parallel_jobs: int) -> Record:
        """Run one trial of a search that runs `parallel_jobs` at once."""
        self._parallel_jobs[request["TrainingJobName"]] = parallel_jobs
        return self.run(request, log_dir, parent)

    def work(self, name: str, request: Mapping[str, Any], log_dir: Path, stop: StopSignal) -> Record:
        """Fetch channels and checkpoints, train, send the model."""
        parallel_jobs = self._parallel_jobs.pop(name, 1)
        plan = self._plan(name, request, log_dir, parallel_jobs)
        metrics = Metrics(request["AlgorithmSpecification"].get("MetricDefinitions") or ())
        patience = Patience.granted_by(request)
        while True:
            try:
                hosts = self._run_on_new_hosts(name, request, plan, metrics, stop)
                break
            except StepFailureError as failure:
                if failure.exception_type != INTERNAL_ERROR or not patience.once_more():
                    raise
                self._phase(name, "Interrupted" if patience.spot else "Restarting")
                release_disks(self.services.settings.jobs_dir / name)
                shutil.rmtree(self.services.settings.jobs_dir / name)
        self._phase(name, "Uploading")
        files = merged_files([hosts.folder_of(host) / "model" for host in hosts.names])
        self._send(hosts, request, files, MODEL_ARCHIVE, "model")
        return {"FinalMetricDataList": metrics.as_list(), **_times(self.records.find(name) or {})}

    def _run_on_new_hosts(
        self, name: str, request: Mapping[str, Any], plan: JobPlan, metrics: Metrics, stop: StopSignal
    ) -> JobHosts:
        self._phase(name, "Downloading")
        hosts = JobHosts(self.services, plan, metrics)
        self._prepare(hosts, plan, request)
        checkpoints = self._checkpoints(hosts, request)
        self._phase(name, "Training", TrainingStartTime=time.time())
        try:
            self._run_hosts(name, hosts, metrics, checkpoints, stop)
        finally:
            for sync in checkpoints:
                sync.push(final=True)
            self._send_output(hosts, request)
        return hosts

    def _interruption(self, name: str, checkpoints: Sequence[FolderSync]) -> Callable[[], None]:
        """Return what takes a spot job's hosts away, as often as `local.cloud:` says: call it while they run.

        It raises StepFailureError once a checkpoint has reached S3, or after a while in a job without checkpoints.
        """
        record = self.records.find(name) or {}
        before = [item["Status"] for item in record["SecondaryStatusTransitions"]].count("Interrupted")
        is_due = record.get("EnableManagedSpotTraining") and before < self.services.cloud.spot_interruptions
        due_s, files_before = time.monotonic() + _SPOT_S, [sync.files for sync in checkpoints]

        def interrupt() -> None:
            has_saved = [sync.files for sync in checkpoints] != files_before
            if is_due and (has_saved if checkpoints else time.monotonic() > due_s):
                raise StepFailureError("InternalServerError: the spot capacity was taken back", INTERNAL_ERROR)

        return interrupt

    def _run_hosts(
        self, name: str, hosts: JobHosts, metrics: Metrics, checkpoints: list[FolderSync], stop: StopSignal
    ) -> None:
        request = self.records.find(name) or {}
        sources = [channel["DataSource"] for channel in request.get("InputDataConfig") or ()]
        mounted = [source[_FILE_SYSTEM]["FileSystemId"] for source in sources if _FILE_SYSTEM in source]
        push = pushing(self.services.settings.sync_every_s, checkpoints)
        known: list[Any] = []
        interruption = self._interruption(name, checkpoints)

        def tick() -> None:
            push()
            self.services.file_systems.refresh(mounted)
            interruption()
            if metrics.as_list() != known:
                known[:] = metrics.as_list()
                self.records.update(name, FinalMetricDataList=list(known))

        hosts.run(stop, tick)

    def _plan(self, name: str, request: Mapping[str, Any], log_dir: Path, parallel_jobs: int) -> JobPlan:
        algorithm = request["AlgorithmSpecification"]
        entry_point = tuple(algorithm.get("ContainerEntrypoint") or ())
        arguments = tuple(algorithm.get("ContainerArguments") or ())
        # SageMaker runs an image without an entry point or arguments with `train`.
        arguments = arguments if entry_point else arguments or ("train",)
        return JobPlan(
            name=name,
            mark=self.mark(name),
            program=Program(algorithm.get("TrainingImage", ""), entry_point, arguments),
            environment={
                **{key: to_text(value) for key, value in (request.get("Environment") or {}).items()},
                "TRAINING_JOB_NAME": name,
                "TRAINING_JOB_ARN": arn(self.kind, name),
            },
            groups=host_groups(request["ResourceConfig"], self.services.cloud.hidden_gpus),
            log_group=TRAINING_GROUP,
            log_dir=log_dir,
            max_runtime_s=(request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds"),
            parallel_jobs=parallel_jobs,
        )

    def _prepare(self, hosts: JobHosts, plan: JobPlan, request: Mapping[str, Any]) -> None:
        for host in hosts.names:
            folder = hosts.folder_of(host)
            resources = resource_config(plan.groups, host, hosts.interface_of(host))
            write_training_contract(folder, request, resources)
            for channel in request.get("InputDataConfig") or ():
                self._open_channel(channel, folder, resources, request)

    def _open_channel(
        self, channel: Mapping[str, Any], folder: Path, resources: Mapping[str, Any], request: Mapping[str, Any]
    ) -> None:
        target, source = folder / "input" / "data" / channel["ChannelName"], channel["DataSource"]
        if _FILE_SYSTEM in source:
            target.symlink_to(self.services.file_systems.mount(source[_FILE_SYSTEM]).resolve())
            return
        mode = channel.get("InputMode", request["AlgorithmSpecification"].get("TrainingInputMode", "File"))
        if mode not in _INPUT_MODES:
            raise StepFailureError(f"ClientError: channel {channel['ChannelName']!r}: InputMode {mode!r} not supported")
        s3_source = source["S3DataSource"]
        hosts = _hosts_of(s3_source, resources)
        if resources["current_host"] in hosts:
            part = hosts.index(resources["current_host"])
            fetch_source(self.services.store, s3_source, target, part, len(hosts))

    def _checkpoints(self, hosts: JobHosts, request: Mapping[str, Any]) -> list[FolderSync]:
        config = request.get("CheckpointConfig")
        if not config:
            return []
        syncs = []
        for host in hosts.names:
            folder = local_path(hosts.folder_of(host), config.get("LocalPath", CHECKPOINT_DIR))
            folder.mkdir(parents=True, exist_ok=True)
            syncs.append(FolderSync(self.services.store, folder, config["S3Uri"]))
            syncs[-1].fetch()
        return syncs

    def _send_output(self, hosts: JobHosts, request: Mapping[str, Any]) -> None:
        files = merged_files([hosts.folder_of(host) / "output" / "data" for host in hosts.names])
        if files:
            self._send(hosts, request, files, "output.tar.gz", "output")

    def _send(
        self, hosts: JobHosts, request: Mapping[str, Any], files: Mapping[str, Path], archive: str, folder: str
    ) -> None:
        config = request["OutputDataConfig"]
        prefix = f"{config['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output"
        if config.get("CompressionType", "GZIP") == "NONE":
            for name, path in files.items():
                self.services.store.put_file(f"{prefix}/{folder}/{name}", path, link=True)
            return
        target = hosts.folder / archive
        write_archive(target, files)
        self.services.store.put_file(f"{prefix}/{archive}", target, link=True)

    def _phase(self, name: str, status: str, **changes: Any) -> None:
        now_s = time.time()
        record = self.records.find(name) or {}
        *before, last = record["SecondaryStatusTransitions"]
        transitions = [*before, {**last, "EndTime": now_s}, {"Status": status, "StartTime": now_s}]
        self.records.update(name, SecondaryStatus=status, SecondaryStatusTransitions=transitions, **changes)


def _hosts_of(source: Mapping[str, Any], resources: Mapping[str, Any]) -> list[str]:
    """Return the hosts among which a channel is dealt out: those of its instance groups, else all."""
    groups = source.get("InstanceGroupNames")
    if not groups:
        return list(resources["hosts"])
    known = {group["instance_group_name"]: group["hosts"] for group in resources["instance_groups"]}
    missing = [group for group in groups if group not in known]
    if missing:
        raise StepFailureError(f"ClientError: channel names instance group {missing}, which does not exist")
    return [host for group in groups for host in known[group]]


def _times(record: Record) -> Record:
    seconds = max(1, round(time.time() - record.get("TrainingStartTime", time.time())))
    return {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
