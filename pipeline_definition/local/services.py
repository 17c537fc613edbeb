"""What every part of the control plane shares."""

from collections.abc import Mapping
from typing import Any

from params.cloud import Cloud
from pipeline_definition.local.file_system import FileSystems
from pipeline_definition.local.object_store import ObjectStore
from pipeline_definition.local.records import Records
from pipeline_definition.local.settings import LocalSettings

_KINDS = (
    *("processing-job", "training-job", "hyper-parameter-tuning-job", "endpoint", "endpoint-config", "model"),
    *("model-package", "model-package-group", "pipeline", "async-invocation"),
)


class Services:
    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings
        self.store = ObjectStore(settings.folder("s3"), settings.state / "s3.jsonl")
        folder = settings.state / "records"
        self.file_systems = FileSystems(settings.folder("fsx"), folder, self.store)
        self.records = {kind: Records(folder / f"{kind.removeprefix('hyper-parameter-')}s") for kind in _KINDS}
        self.url = ""
        """Where the control plane can be reached; known once it listens."""
        self.cloud = Cloud()
        """How unlike a laptop it is."""

    def set_cloud(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the switches of `local.cloud:` as a request says; all others are off."""
        self.cloud = Cloud.model_validate(request)
        self.store.denied, self.file_systems.import_lag_s = self.cloud.denied, self.cloud.import_lag_s
        return {}
