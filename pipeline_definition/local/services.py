"""What every part of the control plane shares."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3

from params.cloud import Cloud
from pipeline_definition.local.file_system import FileSystems
from pipeline_definition.local.object_store import ObjectStore
from pipeline_definition.local.records import Records
from pipeline_definition.local.settings import CREDENTIALS, REGION, SERVICE_KEY, LocalSettings

_new_client: Any = boto3.client  # typed by a literal name for each service
_clients_lock = threading.Lock()


@dataclass
class Services:
    """Settings, storage and records of one control plane."""

    settings: LocalSettings
    store: ObjectStore
    file_systems: FileSystems
    processing_jobs: Records
    training_jobs: Records
    tuning_jobs: Records
    endpoints: Records
    model_packages: Records
    model_package_groups: Records
    url: str = ""
    """Where the control plane can be reached; known once it listens."""
    cloud: Cloud = field(default_factory=Cloud)
    """How unlike a laptop it is."""
    _clients: dict[str, Any] = field(default_factory=dict)

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
        """Turn the switches of `local.cloud:` as a request says; all others are off. Return what they were."""
        before, self.cloud = self.cloud, Cloud.model_validate(request)
        self.store.denied, self.file_systems.import_lag_s = self.cloud.denied, self.cloud.import_lag_s
        return before.model_dump(mode="json")

    @classmethod
    def open(cls, settings: LocalSettings) -> Services:
        """Load the state folder."""
        store = ObjectStore(settings.objects_dir, settings.state / "s3.jsonl")
        store.load()
        records = settings.state / "records"
        return cls(
            settings=settings,
            store=store,
            file_systems=FileSystems(settings.file_systems_dir, records, store),
            processing_jobs=Records(records / "processing-jobs"),
            training_jobs=Records(records / "training-jobs"),
            tuning_jobs=Records(records / "tuning-jobs"),
            endpoints=Records(records / "endpoints"),
            model_packages=Records(records / "model-packages"),
            model_package_groups=Records(records / "model-package-groups"),
        )
