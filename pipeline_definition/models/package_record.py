"""The files that a model package points at: metrics, data manifest, training record, pictures; and its cost.

Reads S3 by the addresses in the package's metadata, and the price file; `fetch` writes them into a folder.

    sd-pipeline models show latest --out package
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from params.files import write_bytes
from params.layout import CONTACT_SHEET_FILE, LINEAGE_FILE, METRICS_FILE, SAMPLES_DIR, TRAINING_LOG_FILE, UNKNOWN
from params.s3 import join_uri
from pipeline_definition.artifacts.archive import open_object, picture_names, read_members
from pipeline_definition.artifacts.folder import LATENTS_MANIFEST_FILE, SHARDS_MANIFEST_FILE
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.errors import OperatorError
from pipeline_definition.models.registry import ModelPackage
from pipeline_definition.session import Target

SECONDS_PER_HOUR: Final = 3600.0
MAX_FILE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True)
class PackageRecord:
    """A package with what its addresses hold."""

    package: ModelPackage
    metrics: Mapping[str, Any]
    """metrics.json: `metrics` by name with value, low and high; `model`, the lineage. Empty without one."""
    data_manifest: Mapping[str, Any]
    """The latents' manifest without its list of shards; empty without one."""

    @property
    def model(self) -> Mapping[str, Any]:
        """The model's own record: settings, code digest, data digest, throughput, versions."""
        return dict(self.metrics.get("model") or {})

    @property
    def training_usd(self) -> float | None:
        """What Train cost at on-demand prices; None where its hosts or their price are not known."""
        metadata = self.package.metadata
        price = load_prices().on_demand().get(metadata.get("training_instance_type", ""))
        try:
            seconds, hosts = float(metadata["billable_seconds"]), int(metadata["training_instance_count"])
        except (KeyError, ValueError):
            return None
        return None if price is None else hosts * seconds / SECONDS_PER_HOUR * price

    @property
    def images_per_s(self) -> float | None:
        """Median throughput of Train, all GPUs together; None where it is not known."""
        text = self.package.metadata.get("images_per_s", UNKNOWN)
        return None if text == UNKNOWN else float(text)


class PackageFiles:
    """The files of packages in one target's S3."""

    def __init__(self, target: Target) -> None:
        self._s3 = target.client("s3")

    def record(self, package: ModelPackage) -> PackageRecord:
        """Return a package's record.

        Raises OperatorError if a file that the package names is missing or is not JSON.
        """
        metrics = self._json(package.metrics_uri) if package.metrics_uri else {}
        manifest = self._json(package.data_manifest_uri) if package.data_manifest_uri else {}
        return PackageRecord(package, metrics, {key: value for key, value in manifest.items() if key != "shards"})

    def ledger(self, package: ModelPackage) -> dict[str, Any]:
        """Return the counts of every row of the table that a package's shards came from; empty where none is named."""
        uri = package.metadata.get("shards_manifest", "")
        return dict(self._json(uri).get("ledger") or {}) if uri else {}

    def fetch(self, package: ModelPackage, folder: Path) -> list[Path]:
        """Write a package's files into a folder and return them; existing files are replaced."""
        metadata = package.metadata
        named = {
            METRICS_FILE: package.metrics_uri,
            LATENTS_MANIFEST_FILE: package.data_manifest_uri,
            SHARDS_MANIFEST_FILE: metadata.get("shards_manifest", ""),
            CONTACT_SHEET_FILE: metadata.get("contact_sheet", ""),
        }
        contents = {name: self._read(uri) for name, uri in named.items() if uri}
        contents |= self._training_record(metadata.get("training_record", ""))
        contents |= self._samples(metadata.get("samples", ""))
        for name, content in contents.items():
            write_bytes(folder / name, content)
        return [folder / name for name in contents]

    def _training_record(self, uri: str) -> dict[str, bytes]:
        if not uri:
            return {}
        try:
            return read_members(self._open(uri), (LINEAGE_FILE, TRAINING_LOG_FILE))
        except OperatorError as error:
            raise OperatorError(f"{uri}: {error}") from None

    def _samples(self, uri: str) -> dict[str, bytes]:
        if not uri:
            return {}
        names = picture_names(self._s3, uri)
        return {f"{SAMPLES_DIR}/{name}": self._read(join_uri(uri, name)) for name in names}

    def _json(self, uri: str) -> dict[str, Any]:
        try:
            value = json.loads(self._read(uri))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise OperatorError(f"{uri}: no JSON object")
        return value

    def _read(self, uri: str) -> bytes:
        return bytes(self._open(uri).read())

    def _open(self, uri: str) -> Any:
        return open_object(self._s3, uri, MAX_FILE_BYTES)


def facts(record: PackageRecord) -> Iterator[tuple[str, str]]:
    """Yield what an approver wants to know, as (name, text): first metrics and cost, then data, settings, addresses."""
    package, usd, rate = record.package, record.training_usd, record.images_per_s
    yield "package", package.arn
    yield "status", f"{package.status} {package.reason}".strip()
    yield "created", package.created
    for name, entry in (record.metrics.get("metrics") or {}).items():
        yield name, metric_text(entry)
    if rate is not None:
        yield "throughput", f"{rate:,.1f} images/s on {hosts_text(package)}"
    if usd is not None:
        yield "Train cost", f"${usd:,.2f} on demand, at the prices of {load_prices().date}"
    for name in ("resolution_px", "counts", "encoder_digest"):
        if name in record.data_manifest:
            yield f"data {name.replace('_', ' ')}", plain_text(record.data_manifest[name])
    for name, value in (record.model.get("settings") or {}).items():
        yield f"setting {name}", plain_text(value)
    for image in package.images:
        yield "image", image
    yield from package.metadata.items()


def metric_text(entry: Mapping[str, Any]) -> str:
    """Return `12.34 (11.90 to 12.80)`: a metric with its 95 % interval."""
    interval = f" ({entry['low']:.4g} to {entry['high']:.4g})" if {"low", "high"} <= entry.keys() else ""
    return f"{entry['value']:.4g}{interval}"


def hosts_text(package: ModelPackage) -> str:
    """Return `4 x ml.p4d.24xlarge`; empty where it is not known."""
    names = ("training_instance_count", "training_instance_type")
    values = [package.metadata[name] for name in names if name in package.metadata]
    return " x ".join(values) if len(values) == len(names) else ""


def plain_text(value: Any) -> str:
    """Return a text as it is, any other JSON value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
