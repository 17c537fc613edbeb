"""Processing jobs: inputs from S3, a program on each host, outputs to S3.

A job names its own entry point (AppSpecification.ContainerEntrypoint); without one, it is the image's.
"""

import time
from collections.abc import Mapping
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
    kind, prefix = "processing-job", "ProcessingJob"

    def new_record(self, request: Mapping[str, Any]) -> Record:
        """Return the start, and inputs and outputs even where the request has none: property paths go through them."""
        return {
            "ProcessingInputs": request.get("ProcessingInputs", []),
            "ProcessingOutputConfig": request.get("ProcessingOutputConfig", {"Outputs": []}),
            "ProcessingStartTime": time.time(),
        }

    def work(self, job: RunningJob) -> Record:
        application, store = job.request["AppSpecification"], self.services.store
        program = Program.of(application["ImageUri"], application)
        hosts = JobHosts(self.services, job, program, job.request["ProcessingResources"]["ClusterConfig"])
        outputs = _outputs(job.request)
        self._prepare(hosts, job.request, outputs)
        syncs, at_the_end = [], []
        for output in outputs:
            for folder in (local_path(hosts.folder_of(host), output["LocalPath"]) for host in hosts.names):
                if output["S3UploadMode"] == "Continuous":
                    syncs.append(FolderSync(store, folder, output["S3Uri"]))
                else:
                    at_the_end.append((folder, output["S3Uri"]))
        with pushing(self.services.settings.sync_every_s, syncs) as tick:
            hosts.run(tick)
        for folder, uri in at_the_end:
            send_folder(store, folder, uri)
        message = hosts.folder_of(hosts.names[0]) / "output" / "message"
        text = message.read_text(encoding="utf-8", errors="replace")[:_MESSAGE_CHARACTERS] if message.is_file() else ""
        return {"ExitMessage": text} if text else {}

    def _prepare(self, hosts: JobHosts, request: Mapping[str, Any], outputs: list[Mapping[str, Any]]) -> None:
        for index, host in enumerate(hosts.names):
            folder = hosts.folder_of(host)
            write_processing_contract(folder, request, hosts.resources_of(host))
            for item in request.get("ProcessingInputs") or ():
                if (source := item.get("S3Input")) and not item.get("AppManaged"):
                    target = local_path(folder, source["LocalPath"])
                    fetch_source(self.services.store, source, target, index, len(hosts.names))
            for output in outputs:
                local_path(folder, output["LocalPath"]).mkdir(parents=True, exist_ok=True)


def _outputs(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    outputs = (request.get("ProcessingOutputConfig") or {}).get("Outputs") or ()
    sent = (output["S3Output"] for output in outputs if "S3Output" in output and not output.get("AppManaged"))
    return [output for output in sent if "LocalPath" in output]
