"""One production variant of an endpoint: a model folder and a server process that answers /ping and /invocations.

Writes <state>/endpoints/<endpoint>/<deployment>/<variant>/model; a server that dies is started again.
"""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import shutil
import threading
import time
from collections.abc import Mapping
from typing import Any

from pipeline_definition.local.archive import extract_archive
from pipeline_definition.local.environment import free_ports, hostile_environment, job_environment
from pipeline_definition.local.errors import StepFailureError, StepStoppedError
from pipeline_definition.local.host_group import Host, HostGroup
from pipeline_definition.local.job_hosts import NO_CAPACITY
from pipeline_definition.local.job_logs import ENDPOINT_GROUP, JobLogs, Metrics, last_lines
from pipeline_definition.local.jobs import state_mark
from pipeline_definition.local.placement import Program, placed
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import HOST
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.storage import fetch_prefix

_PING_EVERY_S = 0.1
_PING_TIMEOUT_S = 5.0
INVOCATION_TIMEOUT_S = 60.0
_FIRST_RESTART_S, _LAST_RESTART_S = 0.5, 30.0
_STEADY_AFTER_S = 60.0


class RunningVariant:
    """A running variant."""

    def __init__(
        self, services: Services, endpoint: str, config: Mapping[str, Any], deployment: str, variants: int
    ) -> None:
        self.name: str = config["VariantName"]
        self.weight = float(config.get("InitialVariantWeight", 1.0))
        self.log = services.settings.endpoints_dir / endpoint / "logs" / f"{self.name}.log"
        self.endpoint = endpoint
        self._services, self._config, self._count = services, config, variants
        self._folder = services.settings.endpoints_dir / endpoint / deployment / self.name
        self._mark = f"{state_mark(services.settings.state)}endpoint/{endpoint}/{deployment}/{self.name}/"
        self._port = 0
        self._program = Program("", (), ("serve",))
        self._environment: dict[str, str] = {}
        self._stop = StopSignal()
        self._thread: threading.Thread | None = None
        self._deaths = 0

    def start(self) -> None:
        """Fetch the model and start the server; return when /ping answers 200.

        Raises StepFailureError with the server's last lines when it ends or takes too long.
        """
        patterns = self._services.cloud.no_capacity
        if any(fnmatch.fnmatchcase(self._config.get("InstanceType", ""), pattern) for pattern in patterns):
            raise StepFailureError(NO_CAPACITY)
        container = self._container()
        self._fetch_model(container)
        self._port = free_ports(1)[0]
        self._program = Program(str(container.get("Image", "")), (), ("serve",))
        self._environment = {
            **job_environment(self._services.url, self._services.settings.source_dir, self._folder, self._count),
            **{key: str(value) for key, value in (container.get("Environment") or {}).items()},
            **hostile_environment(self._services.cloud),
            "SAGEMAKER_BIND_TO_PORT": str(self._port),
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._wait_until_ready()

    def stop(self) -> None:
        """End the server and delete its folder."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._services.settings.grace_s + 10.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ping(self) -> bool:
        """Whether the server is ready."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=_PING_TIMEOUT_S)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        return False

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Post to /invocations; return status, headers and body. Raises OSError where the server cannot be reached."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=INVOCATION_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("POST", "/invocations", body=body, headers=dict(headers))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def _container(self) -> Mapping[str, Any]:
        """Return the model's container; one that names a model package is the package's, with what the model adds."""
        client = self._services.client("sagemaker")
        model = client.describe_model(ModelName=self._config["ModelName"])
        container: dict[str, Any] = model.get("PrimaryContainer") or (model.get("Containers") or [{}])[0]
        package = container.get("ModelPackageName")
        if package:
            specification = client.describe_model_package(ModelPackageName=package)["InferenceSpecification"]
            own = specification["Containers"][0]
            environment = {**own.get("Environment", {}), **container.get("Environment", {})}
            container = {**own, **container, "Environment": environment}
        return container

    def _fetch_model(self, container: Mapping[str, Any]) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        target = self._folder / "model"
        target.mkdir(parents=True)
        source = (container.get("ModelDataSource") or {}).get("S3DataSource")
        uri = source["S3Uri"] if source else container.get("ModelDataUrl")
        if source and source.get("S3DataType") == "S3Prefix" and source.get("CompressionType", "None") == "None":
            fetch_prefix(self._services.store, source["S3Uri"], target)
        elif uri:
            fetch_prefix(self._services.store, uri, self._folder / "download")
            archive = next((self._folder / "download").glob("*"))
            extract_archive(archive, target)
            shutil.rmtree(self._folder / "download")

    def _serve(self) -> None:
        """Keep a server running until asked to stop; the pause before a restart doubles, unless it ran steadily."""
        pause_s = _FIRST_RESTART_S
        try:
            while not self._stop.is_set:
                began_s = time.monotonic()
                self._run_once()
                self._deaths += 1
                pause_s = _FIRST_RESTART_S if time.monotonic() - began_s > _STEADY_AFTER_S else pause_s
                self._stop.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_RESTART_S)
        except StepStoppedError:
            return

    def _run_once(self) -> None:
        settings = self._services.settings
        group_name = ENDPOINT_GROUP.format(name=self.endpoint)
        logs = JobLogs(group_name, self.name, {"instance": self.log}, Metrics(()))
        logs.files["instance"].skip_old_lines()
        host = Host(self.name, (), self._environment, self._folder, self.log)
        group = HostGroup(self._mark, [placed(settings, self._program, host, self._mark)], settings.grace_s)
        try:
            with self._stop.calling(group.stop):
                group.wait(logs.pump, settings.log_every_s)
        finally:
            if settings.engine is not None:
                settings.engine.remove(self._mark)
        logs.pump(final=True)

    def _wait_until_ready(self) -> None:
        default_s = self._services.settings.startup_timeout_s
        limit_s = float(self._config.get("ContainerStartupHealthCheckTimeoutInSeconds", default_s))
        deadline_s = time.monotonic() + limit_s
        while not self.ping():
            self._stop.check()
            if self._deaths or time.monotonic() > deadline_s:
                why = "ended" if self._deaths else f"did not answer /ping within {limit_s:g} s"
                self.stop()
                raise StepFailureError(f"AlgorithmError: variant {self.name}: the server {why}: {last_lines(self.log)}")
            time.sleep(_PING_EVERY_S)
