"""Training jobs: channels from S3 and FSx, a program on each host, a model and checkpoints to S3."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from params.layout import CHECKPOINT_DIR, MODEL_ARCHIVE
from pipeline_definition.local.archive import merged_files, write_archive
from pipeline_definition.local.container_engine import Program
from pipeline_definition.local.contract import local_path, write_training_contract
from pipeline_definition.local.errors import INTERNAL_ERROR, StepFailureError
from pipeline_definition.local.folder_sync import FolderSync, pushing
from pipeline_definition.local.job_hosts import JobHosts, RunningJob
from pipeline_definition.local.job_logs import Metrics
from pipeline_definition.local.jobs import Jobs
from pipeline_definition.local.records import Record
from pipeline_definition.local.storage import fetch_source

Tick = Callable[[], None]
_FILE_SYSTEM = "FileSystemDataSource"
# For so long the hosts of a spot job without checkpoints are left alone.
_SPOT_S = 2.0


class TrainingJobs(Jobs):
    kind, prefix = "training-job", "TrainingJob"

    def new_record(self, request: Mapping[str, Any]) -> Record:
        compressed = request["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP"
        model = f"{_output_uri(request)}/{MODEL_ARCHIVE if compressed else 'model/'}"
        return {
            "ModelArtifacts": {"S3ModelArtifacts": model},
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": time.time()}],
            "FinalMetricDataList": [],
        }

    def ended(self, cause: str) -> Record:
        return {"SecondaryStatus": cause, **super().ended(cause)}

    def work(self, job: RunningJob) -> Record:
        """Fetch channels and checkpoints, train, send the model.

        A job that lost its hosts restarts on others, from the checkpoints that reached S3: a managed spot job until
        MaxWaitTimeInSeconds, any other as often as its RetryStrategy says.
        Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_RetryStrategy.html
        """
        metrics = Metrics(job.request["AlgorithmSpecification"].get("MetricDefinitions") or ())
        is_spot = bool(job.request.get("EnableManagedSpotTraining"))
        give_up_s = time.monotonic() + ((job.request.get("StoppingCondition") or {}).get("MaxWaitTimeInSeconds") or 0)
        tries_left = int((job.request.get("RetryStrategy") or {}).get("MaximumRetryAttempts") or 0)
        while True:
            try:
                hosts = self._run_on_new_hosts(job, metrics)
                break
            except StepFailureError as failure:
                tries_left -= 1
                is_patient = time.monotonic() <= give_up_s if is_spot else tries_left >= 0
                if failure.exception_type != INTERNAL_ERROR or not is_patient:
                    raise
                self._phase(job.name, "Interrupted" if is_spot else "Restarting")
                self.clear(job.name)
        self._phase(job.name, "Uploading")
        self._send(hosts, job.request, "model", MODEL_ARCHIVE)
        seconds = max(1, round(time.time() - (self.records.find(job.name) or {})["TrainingStartTime"]))
        times = {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
        return {"FinalMetricDataList": metrics.as_list(), **times}

    def _run_on_new_hosts(self, job: RunningJob, metrics: Metrics) -> JobHosts:
        self._phase(job.name, "Downloading")
        algorithm = job.request["AlgorithmSpecification"]
        program = Program.of(algorithm.get("TrainingImage", ""), algorithm)
        if not (program.entry_point or program.arguments):  # so SageMaker runs an image
            program = replace(program, arguments=("train",))
        hosts = JobHosts(self.services, job, program, job.request["ResourceConfig"], metrics)
        for host in hosts.names:
            resources = hosts.resources_of(host)
            write_training_contract(hosts.folder_of(host), job.request, resources)
            for channel in job.request.get("InputDataConfig") or ():
                self._open_channel(channel, hosts.folder_of(host), resources)
        checkpoints = self._checkpoints(hosts, job.request)
        self._phase(job.name, "Training", TrainingStartTime=time.time())
        try:
            with pushing(self.services.settings.sync_every_s, checkpoints) as push:
                hosts.run(self._tick(job, metrics, push, self._interruption(job, checkpoints)))
        finally:
            self._send(hosts, job.request, "output/data", "output.tar.gz")
        return hosts

    def _tick(self, job: RunningJob, metrics: Metrics, push: Tick, interrupt: Tick) -> Tick:
        """Return what is done again and again while the hosts run."""
        sources = [channel["DataSource"] for channel in job.request.get("InputDataConfig") or ()]
        mounted = [source[_FILE_SYSTEM]["FileSystemId"] for source in sources if _FILE_SYSTEM in source]
        known: list[Any] = []

        def tick() -> None:
            push()
            self.services.file_systems.refresh(mounted)
            interrupt()
            if metrics.as_list() != known:
                known[:] = metrics.as_list()
                self.records.update(job.name, FinalMetricDataList=list(known))

        return tick

    def _interruption(self, job: RunningJob, checkpoints: Sequence[FolderSync]) -> Tick:
        """Return what takes a spot job's hosts away, as often as `local.cloud:` says: call it while they run.

        StepFailureError once a checkpoint has reached S3, or after a while in a job without checkpoints.
        """
        transitions = (self.records.find(job.name) or {})["SecondaryStatusTransitions"]
        before = [item["Status"] for item in transitions].count("Interrupted")
        is_due = job.request.get("EnableManagedSpotTraining") and before < self.services.cloud.spot_interruptions
        due_s, files_before = time.monotonic() + _SPOT_S, [sync.files for sync in checkpoints]

        def interrupt() -> None:
            has_saved = [sync.files for sync in checkpoints] != files_before
            if is_due and (has_saved if checkpoints else time.monotonic() > due_s):
                raise StepFailureError("InternalServerError: the spot capacity was taken back", INTERNAL_ERROR)

        return interrupt

    def _open_channel(self, channel: Mapping[str, Any], folder: Path, resources: Mapping[str, Any]) -> None:
        target, source = folder / "input" / "data" / channel["ChannelName"], channel["DataSource"]
        if _FILE_SYSTEM in source:
            target.symlink_to(self.services.file_systems.mount(source[_FILE_SYSTEM]).resolve())
            return
        hosts = _hosts_of(source["S3DataSource"], resources)
        if resources["current_host"] in hosts:
            part = hosts.index(resources["current_host"])
            fetch_source(self.services.store, source["S3DataSource"], target, part, len(hosts))

    def _checkpoints(self, hosts: JobHosts, request: Mapping[str, Any]) -> list[FolderSync]:
        syncs = []
        if config := request.get("CheckpointConfig"):
            for host in hosts.names:
                folder = local_path(hosts.folder_of(host), config.get("LocalPath", CHECKPOINT_DIR))
                syncs.append(FolderSync(self.services.store, folder, config["S3Uri"]))
                syncs[-1].fetch()
        return syncs

    def _send(self, hosts: JobHosts, request: Mapping[str, Any], folder: str, archive: str) -> None:
        """Send the files of a folder of all hosts as one archive, or one by one; of output, only where there is any."""
        files, prefix = merged_files([hosts.folder_of(host) / folder for host in hosts.names]), _output_uri(request)
        if request["OutputDataConfig"].get("CompressionType", "GZIP") == "NONE":
            for name, path in files.items():
                self.services.store.put(f"{prefix}/{archive.removesuffix('.tar.gz')}/{name}", path)
        elif files or archive == MODEL_ARCHIVE:
            write_archive(hosts.folder / archive, files)
            self.services.store.put(f"{prefix}/{archive}", hosts.folder / archive)

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


def _output_uri(request: Mapping[str, Any]) -> str:
    return f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output"
