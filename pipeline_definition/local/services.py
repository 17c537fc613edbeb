"""What every part of the control plane shares."""

import threading
from collections.abc import Mapping
from typing import Any

import boto3

from params.cloud import Cloud
from pipeline_definition.local.file_system import FileSystems
from pipeline_definition.local.object_store import ObjectStore
from pipeline_definition.local.records import Records
from pipeline_definition.local.settings import CREDENTIALS, REGION, SERVICE_KEY, LocalSettings

_new_client: Any = boto3.client  # typed by a literal name for each service
_KINDS = (
    *("processing-job", "training-job", "hyper-parameter-tuning-job", "endpoint", "endpoint-config", "model"),
    *("model-package", "model-package-group", "pipeline", "async-invocation"),
)
_clients_lock = threading.Lock()


class Services:
    """Settings, storage and records of one control plane."""

    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings
        self.store = ObjectStore(settings.objects_dir, settings.state / "s3.jsonl")
        folder = settings.state / "records"
        self.file_systems = FileSystems(settings.file_systems_dir, folder, self.store)
        self.records = {kind: Records(folder / f"{kind.removeprefix('hyper-parameter-')}s") for kind in _KINDS}
        self.url = ""
        """Where the control plane can be reached; known once it listens."""
        self.cloud = Cloud()
        """How unlike a laptop it is."""
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Return a boto3 client of this control plane: the engine makes its own changes through the API, too."""
        with _clients_lock:
            if service not in self._clients:
                self._clients[service] = _new_client(
                    service,
                    endpoint_url=self.url,
                    region_name=REGION,
                    aws_access_key_id=SERVICE_KEY,
                    aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
                )
            return self._clients[service]

    def set_cloud(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the switches of `local.cloud:` as a request says; all others are off."""
        self.cloud = Cloud.model_validate(request)
        self.store.denied, self.file_systems.import_lag_s = self.cloud.denied, self.cloud.import_lag_s
        return {}
