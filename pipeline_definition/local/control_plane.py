"""The control plane as a whole: what it is made of, how it starts from its state folder, and how it ends."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from pipeline_definition.local import moto_patches, namespaces
from pipeline_definition.local.async_inference import AsyncInference
from pipeline_definition.local.executions import LocalExecutions
from pipeline_definition.local.gateway import Gateway
from pipeline_definition.local.hostile_cloud import HostileCloud
from pipeline_definition.local.hosting import Hosting
from pipeline_definition.local.job_logs import PROCESSING_GROUP, TRAINING_GROUP, put_lines
from pipeline_definition.local.jobs import LOG_FOLDER, namespace_tag, state_mark
from pipeline_definition.local.model_registry import ModelRegistry
from pipeline_definition.local.operations import checks, operations, tag_operations
from pipeline_definition.local.processes import kill_marked
from pipeline_definition.local.processing import ProcessingJobs
from pipeline_definition.local.promotion import START, Promotion
from pipeline_definition.local.records import Record
from pipeline_definition.local.request_journal import RequestJournal
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import HOST, SET_CLOUD, LocalSettings
from pipeline_definition.local.small_disk import release_disks
from pipeline_definition.local.state_lock import StateLock, state_id
from pipeline_definition.local.step_runner import Kinds
from pipeline_definition.local.training import TrainingJobs
from pipeline_definition.local.tuning import TuningJobs

_log = logging.getLogger(__name__)
_MAX_LINES = 10_000
_MAX_JOBS = 100


class ControlPlane:
    """SageMaker, S3 and their neighbours on one port of this machine."""

    def __init__(self, settings: LocalSettings, port: int = 0) -> None:
        """Take up the state folder; raises StateInUseError where another control plane has it."""
        self._settings = settings
        self._lock = StateLock(settings.state)
        self._lock.acquire()
        self._end_all_jobs()  # left over by one that was killed a moment ago
        moto_patches.apply()
        self._services = services = Services.open(settings)
        training, promotion = TrainingJobs(services), Promotion(services)
        self._kinds = kinds = Kinds(
            processing=ProcessingJobs(services),
            training=training,
            tuning=TuningJobs(services, training),
            registry=ModelRegistry(services, promotion.approved),
            hosting=Hosting(services),
        )
        self._executions = LocalExecutions(services, kinds, state_id(settings.state))
        moto = DomainDispatcherApplication(create_backend_app)
        journal = RequestJournal(settings.state / "requests.jsonl")
        for failure in journal.replay(moto):
            _log.warning("could not be made again: %s", failure)
        gateway = Gateway(
            moto,
            journal,
            kinds.hosting,
            AsyncInference(services, kinds.hosting),
            {
                **operations(services, kinds, self._executions),
                **tag_operations(services),
                START: promotion.before_start,
                SET_CLOUD: services.set_cloud,
            },
            checks(services),
            {"pid": os.getpid(), "state": str(settings.state.resolve()), "runs": str(settings.runs.resolve())},
        )
        self._server = make_server(
            HOST, port, HostileCloud(gateway, services), threaded=True, request_handler=_QuietHandler
        )
        services.url = f"http://{HOST}:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return self._services.url

    @property
    def services(self) -> Services:
        """Storage and records, for callers in the same process."""
        return self._services

    def start(self) -> None:
        """Begin to answer; endpoints that were in service start again."""
        for jobs in (self._kinds.processing, self._kinds.training, self._kinds.tuning):
            jobs.recover()
        self._executions.load()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._lock.announce(self.url, self._settings.runs, self._settings.backend)
        for folder in self._settings.endpoints_dir.glob("*/*"):
            if folder.name != "logs":
                shutil.rmtree(folder, ignore_errors=True)
        self._kinds.hosting.restore()
        threading.Thread(target=restore_logs, args=(self._services,), daemon=True).start()

    def stop(self) -> None:
        """End everything that was started; all state is on disk already."""
        self._executions.shut_down()
        self._kinds.hosting.shut_down()
        self._end_all_jobs()
        self._server.shutdown()
        self._server.server_close()
        self._lock.release()

    def _end_all_jobs(self) -> None:
        mark = state_mark(self._settings.state)
        kill_marked(mark)
        namespaces.remove(namespace_tag(self._settings.state))
        release_disks(self._settings.jobs_dir)
        if self._settings.engine is not None:
            self._settings.engine.remove(mark)


class _QuietHandler(MotoRequestHandler):
    """Says nothing about the requests that went well."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log server errors only."""
        if str(code).startswith("5"):
            super().log_request(code, size)


def restore_logs(services: Services) -> None:
    """Put the logs of the newest jobs back after a restart; all lines have the time of their file."""
    kinds = (
        (services.processing_jobs, "ProcessingJob", PROCESSING_GROUP),
        (services.training_jobs, "TrainingJob", TRAINING_GROUP),
    )
    for records, prefix, group in kinds:
        newest = sorted(records.all(), key=lambda record: -float(record["CreationTime"]))[:_MAX_JOBS]
        for record in newest:
            for path in _log_files(record):
                stream = f"{record[f'{prefix}Name']}/{path.stem}-{int(record['CreationTime'])}"
                with path.open(encoding="utf-8", errors="replace") as file:
                    lines = [line.rstrip("\n") for line in itertools.islice(file, _MAX_LINES)]
                if lines:
                    put_lines(group, stream, lines, path.stat().st_mtime)


def _log_files(record: Record) -> Iterator[Path]:
    folder = record.get(LOG_FOLDER)
    return iter(sorted(Path(folder).glob("*.log"))) if folder else iter(())
