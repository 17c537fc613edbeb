"""The life of a job of any kind: its record from InProgress to its end, and how it is stopped.

Its kinds (processing, training, tuning) say what the work is; steps and the API's Create operations start it alike.
"""

import contextlib
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_definition.local.catalogue import Catalogue
from pipeline_definition.local.errors import (
    RefusedRequestError,
    StepFailureError,
    StepStoppedError,
    TimeLimitError,
    as_failure,
    invalid,
    not_found,
)
from pipeline_definition.local.job_hosts import RunningJob
from pipeline_definition.local.records import Operation, Record
from pipeline_definition.local.request_checks import check_request
from pipeline_definition.local.services import Services
from pipeline_definition.local.stop_signal import StopSignal

_REASON_CHARACTERS = 1024
LOG_FOLDER = "LocalLogFolder"
"""Member of a record: where its logs are."""
INTERRUPTED = "The control plane ended while this job ran"


class Jobs(Catalogue, ABC):
    hidden: tuple[str, ...] = (LOG_FOLDER,)

    def __init__(self, services: Services) -> None:
        super().__init__(services.records, self.kind, self.prefix)
        self.services = services
        self._end_time = f"{self.prefix.removesuffix('Job')}EndTime"
        self._stops: dict[str, StopSignal] = {}

    @abstractmethod
    def new_record(self, request: Mapping[str, Any]) -> Record:
        """Return what Describe adds to the request when the job begins."""

    @abstractmethod
    def work(self, job: RunningJob) -> Record:
        """Do the job; return what Describe adds once it has succeeded."""

    def ended(self, cause: str) -> Record:
        """Return what Describe adds at the end; `cause` is Completed, Failed, Stopped or MaxRuntimeExceeded."""
        return {self._end_time: time.time()}

    def operations(self) -> dict[str, Operation]:
        """Return what answers the operations on jobs: they are stopped, and stay."""
        own = super().operations() | {f"Stop{self.prefix}": self.stop}
        return {name: answer for name, answer in own.items() if name != f"Delete{self.prefix}"}

    def taken(self, name: str) -> RefusedRequestError:
        return RefusedRequestError("ResourceInUse", f"{self.prefix} names must be unique: {name!r} exists already")

    def missing(self, name: str) -> RefusedRequestError:
        return not_found(f"Requested resource not found: {self.kind} {name!r}")

    def run(self, request: Mapping[str, Any], log_dir: Path, parent: StopSignal, parallel_jobs: int = 1) -> Record:
        """Do a job to its end; return its record, which has StepFailureError and StepStoppedError, too."""
        self._begin(request)
        return self._run(request, log_dir, parent, parallel_jobs)

    def create(self, request: Mapping[str, Any]) -> Record:
        """Answer the Create operation: the job goes on by itself."""
        record = self._begin(request)
        log_dir = self.services.settings.runs / "jobs" / record[self._name]

        def run() -> None:
            with contextlib.suppress(StepFailureError, StepStoppedError):  # the record says it
                self._run(request, log_dir, StopSignal())

        threading.Thread(target=run, daemon=True).start()
        return {self._arn: record[self._arn]}

    def stop(self, request: Mapping[str, Any]) -> Record:
        name = self.find(request[self._name])[self._name]
        if name not in self._stops:
            raise invalid(f"The job {name!r} cannot be stopped: it has ended")
        self._stops[name].set()
        return {}

    def recover(self) -> None:
        """Mark the jobs that ran when the control plane was killed as stopped."""
        for record in self.records.all():
            if record[self._status] in ("InProgress", "Stopping"):
                self._finish(record[self._name], "Stopped", INTERRUPTED)

    def clear(self, name: str) -> None:
        shutil.rmtree(self.services.settings.folder("jobs") / name, ignore_errors=True)

    def _begin(self, request: Mapping[str, Any]) -> Record:
        check_request(f"Create{self.prefix}", dict(request))
        more = {self._status: "InProgress", **self.new_record(request)}
        record = self.add(request, **more)
        self._stops[request[self._name]] = StopSignal()
        return record

    def _run(self, request: Mapping[str, Any], log_dir: Path, parent: StopSignal, parallel_jobs: int = 1) -> Record:
        name = request[self._name]
        job = RunningJob(self.kind, name, request, log_dir, self._stops[name], parallel_jobs)

        def ask_to_stop() -> None:
            self.records.update(name, **{self._status: "Stopping"})
            job.stop.set()

        try:
            self.records.update(name, **{LOG_FOLDER: str(log_dir.resolve())})
            with parent.calling(ask_to_stop):
                job.stop.check()
                changes = self.work(job)
            return self._finish(name, "Completed", None, changes)
        except StepStoppedError:
            self._finish(name, "Stopped", None)
            raise
        except Exception as error:
            failure = as_failure(error)
            cause = "MaxRuntimeExceeded" if isinstance(failure, TimeLimitError) else "Failed"
            self._finish(name, cause, failure.reason)
            raise failure from error
        finally:
            self._stops.pop(name, None)

    def _finish(self, name: str, cause: str, reason: str | None, changes: Record | None = None) -> Record:
        if cause != "Failed":  # then what it left can be looked at
            self.clear(name)
        status = {self._status: "Stopped" if cause == "MaxRuntimeExceeded" else cause, "LastModifiedTime": time.time()}
        why = {"FailureReason": reason[:_REASON_CHARACTERS] if reason else None}
        return self.records.update(name, **{**status, **why, **self.ended(cause), **(changes or {})})
