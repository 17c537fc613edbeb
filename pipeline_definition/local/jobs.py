"""The life of a job of any kind: its record from InProgress to its end, and how it is stopped.

The kinds (processing, training, tuning) say what the work is. A pipeline's step and the Create operation of the API
start a job in the same way.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from moto.core.exceptions import ServiceException

from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import (
    RefusedRequestError,
    StepFailureError,
    StepStoppedError,
    TimeLimitError,
    invalid,
    not_found,
)
from pipeline_definition.local.records import Record, Records, page, pick
from pipeline_definition.local.request_shapes import check_request
from pipeline_definition.local.services import Services
from pipeline_definition.local.small_disk import release_disks
from pipeline_definition.local.stop_signal import StopSignal

_REASON_CHARACTERS = 1024
LOG_FOLDER = "LocalLogFolder"
"""Member of a record that Describe does not show: where its logs are."""
INTERRUPTED = "The control plane ended while this job ran"
INTERNAL_ERROR = "SageMaker.JOB_INTERNAL_ERROR"


class Jobs(ABC):
    """All jobs of one kind."""

    kind: ClassVar[str]
    """As in the ARN: training-job."""
    prefix: ClassVar[str]
    """As in the API's members: TrainingJob -> TrainingJobName, TrainingJobStatus."""
    summary_members: ClassVar[tuple[str, ...]] = ()
    """What a List operation shows besides a job's name, ARN, times and status."""

    def __init__(self, services: Services, records: Records) -> None:
        self.services, self.records = services, records
        self._stops: dict[str, StopSignal] = {}

    @abstractmethod
    def new_record(self, request: Mapping[str, Any]) -> Record:
        """Return what Describe adds to the request when the job begins."""

    @abstractmethod
    def work(self, name: str, request: Mapping[str, Any], log_dir: Path, stop: StopSignal) -> Record:
        """Do the job; return what Describe adds once it has succeeded."""

    def ended(self, cause: str) -> Record:
        """Return what Describe adds at the end; `cause` is Completed, Failed, Stopped or MaxRuntimeExceeded."""
        return {self._end_time: time.time()}

    def list_jobs(self, request: Mapping[str, Any]) -> Record:
        """Answer the List operation."""
        name, status = f"{self.prefix}Name", f"{self.prefix}Status"
        result = f"{self.prefix}Summaries"
        return page(request, self.records.all(), result=result, name=name, status=status, summary=self.summary)

    def summary(self, record: Record) -> Record:
        """Return what the List operation shows of a job."""
        own = (f"{self.prefix}Name", f"{self.prefix}Arn", f"{self.prefix}Status", self._end_time)
        return pick(*own, "CreationTime", "LastModifiedTime", *self.summary_members)(record)

    @property
    def _end_time(self) -> str:
        return f"{self.prefix.removesuffix('Job')}EndTime"

    def run(self, request: Mapping[str, Any], log_dir: Path, parent: StopSignal) -> Record:
        """Do a job to its end; return its record.

        Raises StepFailureError or StepStoppedError; the record says the same.
        """
        self._begin(request)
        return self._run(request, log_dir, parent)

    def create(self, request: Mapping[str, Any]) -> Record:
        """Answer the Create operation: the job goes on by itself."""
        try:
            record = self._begin(request)
        except StepFailureError as error:
            raise invalid(error.reason) from None
        log_dir = self.services.settings.runs / "jobs" / record[f"{self.prefix}Name"]
        threading.Thread(target=self._run_alone, args=(request, log_dir), daemon=True).start()
        return {f"{self.prefix}Arn": record[f"{self.prefix}Arn"]}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """Answer the Describe operation."""
        name = request[f"{self.prefix}Name"]
        record = self.records.get(name, not_found(f"Requested resource not found: {self.kind} {name!r}"))
        record.pop(LOG_FOLDER, None)
        return record

    def stop(self, request: Mapping[str, Any]) -> Record:
        """Answer the Stop operation."""
        name = self.describe(request)[f"{self.prefix}Name"]
        if name not in self._stops:
            raise invalid(f"The job {name!r} cannot be stopped: it has ended")
        self._stops[name].set()
        return {}

    def recover(self) -> None:
        """Mark the jobs that ran when the control plane was killed as stopped."""
        for record in self.records.all():
            if record[f"{self.prefix}Status"] in ("InProgress", "Stopping"):
                self._finish(record[f"{self.prefix}Name"], "Stopped", INTERRUPTED)

    def mark(self, name: str) -> str:
        """Return the mark by which every process of a job is known."""
        return f"{state_mark(self.services.settings.state)}{name}/"

    def _begin(self, request: Mapping[str, Any]) -> Record:
        check_request(f"Create{self.prefix}", dict(request))
        name = request[f"{self.prefix}Name"]
        if name in self.records:
            raise RefusedRequestError("ResourceInUse", f"{self.prefix} names must be unique: {name!r} exists already")
        now_s = time.time()
        self._stops[name] = StopSignal()
        return self.records.put(
            name,
            {
                **request,
                f"{self.prefix}Arn": arn(self.kind, name),
                f"{self.prefix}Status": "InProgress",
                "CreationTime": now_s,
                "LastModifiedTime": now_s,
                **self.new_record(request),
            },
        )

    def _run_alone(self, request: Mapping[str, Any], log_dir: Path) -> None:
        try:
            self._run(request, log_dir, StopSignal())
        except (StepFailureError, StepStoppedError):
            return  # the record says it

    def _run(self, request: Mapping[str, Any], log_dir: Path, parent: StopSignal) -> Record:
        name = request[f"{self.prefix}Name"]
        stop = self._stops[name]
        try:
            self.records.update(name, **{LOG_FOLDER: str(log_dir.resolve())})
            with parent.calling(lambda: self._ask_to_stop(name, stop)):
                stop.check()
                changes = self.work(name, request, log_dir, stop)
            return self._finish(name, "Completed", None, changes)
        except StepStoppedError:
            self._finish(name, "Stopped", None)
            raise
        except TimeLimitError as error:
            self._finish(name, "MaxRuntimeExceeded", error.reason)
            raise
        except Exception as error:
            failure = as_failure(error)
            self._finish(name, "Failed", failure.reason)
            raise failure from error
        finally:
            self._stops.pop(name, None)

    def _ask_to_stop(self, name: str, stop: StopSignal) -> None:
        self.records.update(name, **{f"{self.prefix}Status": "Stopping"})
        stop.set()

    def _finish(self, name: str, cause: str, reason: str | None, changes: Record | None = None) -> Record:
        release_disks(self.services.settings.jobs_dir / name)
        if cause != "Failed":  # what a failed job left can be looked at
            shutil.rmtree(self.services.settings.jobs_dir / name, ignore_errors=True)
        status = "Stopped" if cause == "MaxRuntimeExceeded" else cause
        return self.records.update(
            name,
            **{
                f"{self.prefix}Status": status,
                "LastModifiedTime": time.time(),
                "FailureReason": reason[:_REASON_CHARACTERS] if reason else None,
                **self.ended(cause),
                **(changes or {}),
            },
        )


def as_failure(error: Exception) -> StepFailureError:
    """Return any error as a step's failure; what is not the program's or the request's fault can be retried."""
    if isinstance(error, StepFailureError):
        return error
    if isinstance(error, RefusedRequestError):
        return StepFailureError(f"ClientError: {error.message}")
    if isinstance(error, ServiceException):
        return StepFailureError(f"ClientError: {error}")
    return StepFailureError(f"InternalServerError: {type(error).__name__}: {error}", INTERNAL_ERROR)


def namespace_tag(state: Path) -> str:
    """Return how the names of all network namespaces of one state folder begin."""
    return f"sd-{state_mark(state)[:6]}-"


def state_mark(state: Path) -> str:
    """Return how the marks of all processes of one state folder begin."""
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12] + "/"
