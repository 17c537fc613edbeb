"""Processing jobs: inputs from S3, a program on each host, outputs to S3.

A job names its own entry point (AppSpecification.ContainerEntrypoint); without one, it is the image's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_definition.local.contract import host_groups, local_path, resource_config, write_processing_contract
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.folder_sync import FolderSync, pushing
from pipeline_definition.local.job_hosts import JobHosts, JobPlan
from pipeline_definition.local.job_logs import PROCESSING_GROUP, Metrics
from pipeline_definition.local.jobs import Jobs
from pipeline_definition.local.placement import Program
from pipeline_definition.local.records import Record
from pipeline_definition.local.resolver import to_text
from pipeline_definition.local.services import Services
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.storage import fetch_source, send_folder


class ProcessingJobs(Jobs):
    """All processing jobs."""

    kind, prefix, summary_members = "processing-job", "ProcessingJob", ("FailureReason",)

    def __init__(self, services: Services) -> None:
        super().__init__(services, services.processing_jobs)

    def new_record(self, request: Mapping[str, Any]) -> Record:
        """Return the start, and inputs and outputs even where the request has none: property paths go through them."""
        return {
            "ProcessingInputs": request.get("ProcessingInputs", []),
            "ProcessingOutputConfig": request.get("ProcessingOutputConfig", {"Outputs": []}),
            "ProcessingStartTime": time.time(),
        }

    def work(self, name: str, request: Mapping[str, Any], log_dir: Path, stop: StopSignal) -> Record:
        """Fetch the inputs, run the program, send the outputs."""
        plan = self._plan(name, request, log_dir)
        hosts = JobHosts(self.services, plan, Metrics(()))
        outputs = _outputs(request)
        self._prepare(hosts, plan, request)
        continuous = [
            FolderSync(self.services.store, local_path(hosts.folder_of(host), output["LocalPath"]), output["S3Uri"])
            for output in outputs
            for host in hosts.names
            if output["S3UploadMode"] == "Continuous"
        ]
        try:
            hosts.run(stop, pushing(self.services.settings.sync_every_s, continuous))
        finally:
            for sync in continuous:
                sync.push(final=True)
        for output in outputs:
            for host in hosts.names:
                if output["S3UploadMode"] != "Continuous":
                    folder = local_path(hosts.folder_of(host), output["LocalPath"])
                    send_folder(self.services.store, folder, output["S3Uri"])
        return {}

    def _plan(self, name: str, request: Mapping[str, Any], log_dir: Path) -> JobPlan:
        application = request["AppSpecification"]
        return JobPlan(
            name=name,
            mark=self.mark(name),
            program=Program(
                image=application["ImageUri"],
                entry_point=tuple(application.get("ContainerEntrypoint") or ()),
                arguments=tuple(to_text(item) for item in application.get("ContainerArguments") or ()),
            ),
            environment={
                **{key: to_text(value) for key, value in (request.get("Environment") or {}).items()},
                "PROCESSING_JOB_ARN": arn(self.kind, name),
            },
            groups=host_groups(request["ProcessingResources"]["ClusterConfig"], self.services.cloud.hidden_gpus),
            log_group=PROCESSING_GROUP,
            log_dir=log_dir,
            max_runtime_s=(request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds"),
        )

    def _prepare(self, hosts: JobHosts, plan: JobPlan, request: Mapping[str, Any]) -> None:
        for index, host in enumerate(hosts.names):
            folder = hosts.folder_of(host)
            write_processing_contract(folder, request, resource_config(plan.groups, host, hosts.interface_of(host)))
            for item in request.get("ProcessingInputs") or ():
                self._fetch(item, folder, index, len(hosts.names))
            for output in _outputs(request):
                local_path(folder, output["LocalPath"]).mkdir(parents=True, exist_ok=True)

    def _fetch(self, item: Mapping[str, Any], folder: Path, part: int, parts: int) -> None:
        source = item.get("S3Input")
        if source is None:
            raise StepFailureError(f"ClientError: input {item['InputName']!r}: only S3Input is supported")
        if source.get("S3InputMode", "File") != "File":
            raise StepFailureError(f"ClientError: input {item['InputName']!r}: only S3InputMode File is supported")
        if not item.get("AppManaged"):
            fetch_source(self.services.store, source, local_path(folder, source["LocalPath"]), part, parts)


def _outputs(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    outputs = []
    for output in (request.get("ProcessingOutputConfig") or {}).get("Outputs") or ():
        if "S3Output" not in output:
            raise StepFailureError(f"ClientError: output {output['OutputName']!r}: only S3Output is supported")
        if not output.get("AppManaged") and "LocalPath" in output["S3Output"]:
            outputs.append(output["S3Output"])
    return outputs
