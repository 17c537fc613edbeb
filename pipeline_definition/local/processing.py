"""Processing jobs: inputs from S3, a program on each host, outputs to S3.

A job names its own entry point (AppSpecification.ContainerEntrypoint); without one, it is the image's.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_definition.local.container_engine import Program
from pipeline_definition.local.contract import local_path, write_processing_contract
from pipeline_definition.local.folder_sync import FolderSync, pushing
from pipeline_definition.local.job_hosts import JobHosts, RunningJob
from pipeline_definition.local.jobs import Jobs
from pipeline_definition.local.records import Record
from pipeline_definition.local.storage import fetch_source, send_folder

_MESSAGE_CHARACTERS = 1024


class ProcessingJobs(Jobs):
    """All processing jobs."""

    kind, prefix = "processing-job", "ProcessingJob"

    def new_record(self, request: Mapping[str, Any]) -> Record:
        """Return the start, and inputs and outputs even where the request has none: property paths go through them."""
        return {
            "ProcessingInputs": request.get("ProcessingInputs", []),
            "ProcessingOutputConfig": request.get("ProcessingOutputConfig", {"Outputs": []}),
            "ProcessingStartTime": time.time(),
        }

    def work(self, job: RunningJob) -> Record:
        """Fetch the inputs, run the program, send the outputs."""
        application, store = job.request["AppSpecification"], self.services.store
        entry_point, arguments = application.get("ContainerEntrypoint") or (), application.get("ContainerArguments")
        program = Program(application["ImageUri"], tuple(entry_point), tuple(arguments or ()))
        hosts = JobHosts(self.services, job, program, job.request["ProcessingResources"]["ClusterConfig"])
        outputs = _outputs(job.request)
        self._prepare(hosts, job.request, outputs)
        folders = [
            (output, local_path(hosts.folder_of(host), output["LocalPath"]))
            for output in outputs
            for host in hosts.names
        ]
        continuous = [
            FolderSync(store, folder, output["S3Uri"])
            for output, folder in folders
            if output["S3UploadMode"] == "Continuous"
        ]
        try:
            hosts.run(pushing(self.services.settings.sync_every_s, continuous))
        finally:
            for sync in continuous:
                sync.push(final=True)
        for output, folder in folders:
            if output["S3UploadMode"] != "Continuous":
                send_folder(store, folder, output["S3Uri"])
        message = hosts.folder_of(hosts.names[0]) / "output" / "message"
        text = message.read_text(encoding="utf-8", errors="replace")[:_MESSAGE_CHARACTERS] if message.is_file() else ""
        return {"ExitMessage": text} if text else {}

    def _prepare(self, hosts: JobHosts, request: Mapping[str, Any], outputs: list[Mapping[str, Any]]) -> None:
        for index, host in enumerate(hosts.names):
            folder = hosts.folder_of(host)
            write_processing_contract(folder, request, hosts.resources_of(host))
            for item in request.get("ProcessingInputs") or ():
                self._fetch(item, folder, index, len(hosts.names))
            for output in outputs:
                local_path(folder, output["LocalPath"]).mkdir(parents=True, exist_ok=True)

    def _fetch(self, item: Mapping[str, Any], folder: Path, part: int, parts: int) -> None:
        source = item.get("S3Input")
        if source and not item.get("AppManaged"):
            fetch_source(self.services.store, source, local_path(folder, source["LocalPath"]), part, parts)


def _outputs(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    outputs = []
    for output in (request.get("ProcessingOutputConfig") or {}).get("Outputs") or ():
        if not output.get("AppManaged") and "LocalPath" in output.get("S3Output", ()):
            outputs.append(output["S3Output"])
    return outputs
