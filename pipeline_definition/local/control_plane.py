"""The control plane as a whole: what it is made of, how it starts from its state folder, and how it ends."""

import itertools
import logging
import os
import shutil
import threading
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler
from werkzeug.serving import make_server

from pipeline_definition.local import moto_patches
from pipeline_definition.local.catalogue import Catalogue
from pipeline_definition.local.executions import LocalExecutions
from pipeline_definition.local.gateway import Gateway
from pipeline_definition.local.hostile_cloud import HostileCloud
from pipeline_definition.local.hosting import Hosting
from pipeline_definition.local.job_logs import LOG_GROUPS, put_lines
from pipeline_definition.local.jobs import LOG_FOLDER
from pipeline_definition.local.model_registry import ModelRegistry
from pipeline_definition.local.operations import operations
from pipeline_definition.local.processes import kill_marked
from pipeline_definition.local.processing import ProcessingJobs
from pipeline_definition.local.promotion import Promotion
from pipeline_definition.local.request_journal import RequestJournal
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import HOST, LocalSettings
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
        self._end_all_jobs()  # left over by one that was killed a moment ago
        moto_patches.apply()
        self._services = services = Services(settings)
        training, promotion = TrainingJobs(services), Promotion(services)
        registry = ModelRegistry(services, promotion.approved)
        tuning = TuningJobs(services, training)
        models = Catalogue(services.records, "model", "Model")
        configs = Catalogue(services.records, "endpoint-config", "EndpointConfig")
        hosting = Hosting(services, configs)
        self._kinds = kinds = Kinds(ProcessingJobs(services), training, tuning, registry, hosting, models, configs)
        self._executions = LocalExecutions(services, kinds, state_id(settings.state))
        moto = DomainDispatcherApplication(moto_patches.backend_app)
        journal = RequestJournal(settings.state / "requests.jsonl")
        answered = operations(services, kinds, self._executions, promotion)
        for failure in journal.replay(moto, answered):
            _log.warning("could not be made again: %s", failure)
        health = {"pid": os.getpid(), "state": str(settings.state), "runs": str(settings.runs)}
        self._gateway = Gateway(moto, journal, kinds.hosting, answered, health)
        app = HostileCloud(self._gateway.answer, services)
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it says every request
        self._server = make_server(HOST, port, app, threaded=True, request_handler=MotoRequestHandler)
        self.url = services.url = f"http://{HOST}:{self._server.server_port}"

    def start(self) -> None:
        """Begin to answer; endpoints that were in service start again."""
        for jobs in (self._kinds.processing, self._kinds.training, self._kinds.tuning):
            jobs.recover()
        self._executions.load()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._lock.announce(self.url, self._settings.runs, self._settings.backend)
        for folder in self._settings.folder("endpoints").glob("*/*"):
            if folder.name != "logs":
                shutil.rmtree(folder, ignore_errors=True)
        self._kinds.hosting.restore()
        threading.Thread(target=restore_logs, args=(self._services,), daemon=True).start()

    def stop(self) -> None:
        """End everything that was started; all state is on disk already."""
        self._gateway.is_ending = True
        self._lock.withdraw()
        self._executions.shut_down()
        self._kinds.hosting.shut_down()
        try:
            self._end_all_jobs()
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._lock.close()

    def _end_all_jobs(self) -> None:
        kill_marked(self._settings.mark)
        if self._settings.engine is not None:
            self._settings.engine.remove(self._settings.mark)


def restore_logs(services: Services) -> None:
    """Put the logs of the newest jobs back after a restart; all lines have the time of their file."""
    for kind, group in LOG_GROUPS.items():
        records = sorted(services.records[kind].all(), key=lambda record: -float(record["CreationTime"]))
        for record in [record for record in records[:_MAX_JOBS] if LOG_FOLDER in record]:
            name = record.get("ProcessingJobName") or record["TrainingJobName"]
            for path in sorted(Path(record[LOG_FOLDER]).glob("*.log")):
                with path.open(encoding="utf-8", errors="replace") as file:
                    lines = [line.rstrip("\n") for line in itertools.islice(file, _MAX_LINES)]
                stream = f"{name}/{path.stem}-{int(record['CreationTime'])}"
                put_lines(group, stream, lines, path.stat().st_mtime)
