"""One production variant of an endpoint: a model folder and a server process that answers /ping and /invocations.

Writes <state>/endpoints/<endpoint>/<deployment>/<variant>/model; a server that dies is started again.
"""

import contextlib
import http.client
import shutil
import threading
import time
from collections.abc import Mapping
from typing import Any

from pipeline_definition.local.archive import extract_archive
from pipeline_definition.local.catalogue import Catalogue
from pipeline_definition.local.container_engine import Program
from pipeline_definition.local.environment import free_ports, job_environment
from pipeline_definition.local.errors import StepFailureError, StepStoppedError
from pipeline_definition.local.host_group import Host, run_hosts
from pipeline_definition.local.job_hosts import require_capacity
from pipeline_definition.local.job_logs import ENDPOINT_GROUP, JobLogs, last_lines
from pipeline_definition.local.model_registry import ModelRegistry
from pipeline_definition.local.records import Record
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import HOST
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.storage import fetch_prefix

_PING_EVERY_S = 0.1
_PING_TIMEOUT_S = 5.0
_STARTUP_TIMEOUT_S = 600.0  # unless the configuration gives a limit
_FIRST_RESTART_S, _LAST_RESTART_S = 0.5, 30.0
_STEADY_AFTER_S = 60.0


class RunningVariant:
    def __init__(self, services: Services, endpoint: str, config: Record, deployment: str, variants: int) -> None:
        self.name: str = config["VariantName"]
        self.weight = float(config.get("InitialVariantWeight", 1.0))
        self.log = services.settings.folder("endpoints") / endpoint / "logs" / f"{self.name}.log"
        self.endpoint = endpoint
        self.in_flight: set[object] = set()
        self._services, self._config, self._count = services, config, variants
        self._folder = services.settings.folder("endpoints") / endpoint / deployment / self.name
        self._mark = f"{services.settings.mark}endpoint/{endpoint}/{deployment}/{self.name}/"
        self._port = 0
        self._stop = StopSignal()
        self._thread: threading.Thread | None = None
        self._deaths = 0

    def start(self) -> None:
        """Fetch the model, start the server, return when it answers; StepFailureError has the server's last lines."""
        settings = self._services.settings
        require_capacity(self._services.cloud, self._config.get("InstanceType", ""))
        container = self._container()
        self._fetch_model(container)
        own = {key: str(value) for key, value in (container.get("Environment") or {}).items()}
        self._port = free_ports(1)[0]
        own["SAGEMAKER_BIND_TO_PORT"] = str(self._port)
        environment = job_environment(self._services.url, self._folder, self._count, own, self._services.cloud)
        program = Program(str(container.get("Image", "")), (), ("serve",))
        argv = settings.command(program, environment, self._folder, self._mark)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        host = Host(self.name, argv, environment, self._folder, self.log)
        self._thread = threading.Thread(target=self._serve, args=(host,), daemon=True)
        self._thread.start()
        self._wait_until_ready()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._services.settings.grace_s + 10.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ping(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._ask("GET", "/ping", _PING_TIMEOUT_S)[0] == 200
        return False

    def invoke(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, dict[str, str], bytes]:
        """Post to /invocations; return status, headers and body. Raises OSError where the server cannot be reached."""
        request = object()
        self.in_flight.add(request)
        try:
            return self._ask("POST", "/invocations", timeout_s, body, headers)
        finally:
            self.in_flight.discard(request)

    def _ask(
        self, method: str, path: str, timeout_s: float, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        with contextlib.closing(http.client.HTTPConnection(HOST, self._port, timeout=timeout_s)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def _container(self) -> Mapping[str, Any]:
        """Return the model's container; one that names a model package is the package's, with what the model adds."""
        model = Catalogue(self._services.records, "model", "Model").find(self._config["ModelName"])
        container: dict[str, Any] = model.get("PrimaryContainer") or (model.get("Containers") or [{}])[0]
        if name := container.get("ModelPackageName"):
            package = ModelRegistry(self._services).describe_model_package({"ModelPackageName": name})
            own = package["InferenceSpecification"]["Containers"][0]
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

    def _serve(self, host: Host) -> None:
        """Keep a server running until asked to stop; the pause before a restart doubles, unless it ran steadily."""
        pause_s = _FIRST_RESTART_S
        try:
            while not self._stop.is_set:
                began_s = time.monotonic()
                logs = JobLogs(ENDPOINT_GROUP.format(name=self.endpoint), self.name, {"instance": self.log})
                run_hosts(self._services.settings, self._mark, [host], self._stop, logs.pump)
                logs.pump(final=True)
                self._deaths += 1
                pause_s = _FIRST_RESTART_S if time.monotonic() - began_s > _STEADY_AFTER_S else pause_s
                self._stop.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_RESTART_S)
        except StepStoppedError:
            return

    def _wait_until_ready(self) -> None:
        limit_s = float(self._config.get("ContainerStartupHealthCheckTimeoutInSeconds", _STARTUP_TIMEOUT_S))
        deadline_s = time.monotonic() + limit_s
        while not self.ping():
            self._stop.check()
            if self._deaths or time.monotonic() > deadline_s:
                why = "ended" if self._deaths else f"did not answer /ping within {limit_s:g} s"
                self.stop()
                raise StepFailureError(f"AlgorithmError: variant {self.name}: the server {why}: {last_lines(self.log)}")
            time.sleep(_PING_EVERY_S)
