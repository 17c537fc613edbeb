"""The files that a model package points at, and its cost; two packages compared, beyond the metrics' intervals.

Reads S3 by the addresses in the package's metadata, and the price file; `fetch` writes them into a folder.

    sd-pipeline models show latest --out package
    sd-pipeline models compare 3 latest
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from params import layout
from params.files import write_bytes
from params.s3 import join_uri
from pipeline_definition.artifacts.archive import open_object, picture_names, read_members
from pipeline_definition.artifacts.folder import LATENTS_MANIFEST_FILE, SHARDS_MANIFEST_FILE
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.errors import OperatorError
from pipeline_definition.models.metric_names import FIDS, HIGHER_IS_BETTER, LOWER_IS_BETTER
from pipeline_definition.models.registry import ModelPackage
from pipeline_definition.session import Target

SECONDS_PER_HOUR: Final = 3600.0
# What differs between any two packages is not compared.
COMPARED: Final = ("dataset", "training_samples", "global_batch_size", "training_image", "code_digest", "source")
MAX_FILE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True)
class PackageRecord:
    package: ModelPackage
    metrics: Mapping[str, Any]
    """metrics.json: `metrics` by name with value, low and high; `model`, the lineage. Empty without one."""
    data_manifest: Mapping[str, Any]
    """The latents' manifest without its list of shards; empty without one."""

    @property
    def entries(self) -> Mapping[str, Any]:
        return self.metrics.get("metrics") or {}

    @property
    def settings(self) -> dict[str, str]:
        """What it was trained with, as texts by `setting NAME`."""
        settings = (self.metrics.get("model") or {}).get("settings") or {}
        return {f"setting {name}": plain_text(value) for name, value in settings.items()}

    @property
    def training_usd(self) -> float | None:
        """What Train cost at on-demand prices; None where its hosts or their price are not known."""
        metadata = self.package.metadata
        try:
            seconds, hosts = float(metadata["billable_seconds"]), int(metadata["training_instance_count"])
            price = load_prices().by_hosts()[metadata["training_instance_type"]]
        except (KeyError, ValueError):
            return None
        return hosts * seconds / SECONDS_PER_HOUR * price

    @property
    def images_per_s(self) -> float | None:
        """Median throughput of Train, all GPUs together; None where it is not known."""
        text = self.package.metadata.get("images_per_s", layout.UNKNOWN)
        return None if text == layout.UNKNOWN else float(text)


class PackageFiles:
    def __init__(self, target: Target) -> None:
        self._s3 = target.client("s3")

    def record(self, package: ModelPackage) -> PackageRecord:
        manifest = self._json(package.data_manifest_uri) if package.data_manifest_uri else {}
        manifest.pop("shards", None)
        return PackageRecord(package, self.metrics(package), manifest)

    def metrics(self, package: ModelPackage) -> dict[str, Any]:
        """Return a package's metrics.json; empty for a model that was not evaluated."""
        return self._json(package.metrics_uri) if package.metrics_uri else {}

    def ledger(self, package: ModelPackage) -> dict[str, Any]:
        """Return the counts of every row of the table that a package's shards came from; empty where none is named."""
        uri = package.metadata.get("shards_manifest", "")
        return dict(self._json(uri).get("ledger") or {}) if uri else {}

    def fetch(self, package: ModelPackage, folder: Path) -> list[Path]:
        """Write a package's files into a folder and return them; existing files are replaced."""
        metadata = package.metadata
        named = {
            layout.METRICS_FILE: package.metrics_uri,
            LATENTS_MANIFEST_FILE: package.data_manifest_uri,
            SHARDS_MANIFEST_FILE: metadata.get("shards_manifest", ""),
            layout.CONTACT_SHEET_FILE: metadata.get("contact_sheet", ""),
        }
        if uri := metadata.get("samples"):
            pictures = picture_names(self._s3, uri)
            named |= {f"{layout.SAMPLES_DIR}/{name}": join_uri(uri, name) for name in pictures}
        contents = {name: self._read(uri) for name, uri in named.items() if uri}
        if uri := metadata.get("training_record"):
            try:
                contents |= read_members(self._open(uri), (layout.LINEAGE_FILE, layout.TRAINING_LOG_FILE))
            except OperatorError as error:
                raise OperatorError(f"{uri}: {error}") from None
        for name, content in contents.items():
            write_bytes(folder / name, content)
        return [folder / name for name in contents]

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
    for name, entry in record.entries.items():
        yield name, metric_text(entry)
    if rate is not None:
        yield "throughput", f"{rate:,.1f} images/s on {hosts_text(package)}"
    if usd is not None:
        yield "Train cost", f"${usd:,.2f} on demand, at the prices of {load_prices().date}"
    for name in ("resolution_px", "counts", "encoder_digest"):
        if name in record.data_manifest:
            yield f"data {name.replace('_', ' ')}", plain_text(record.data_manifest[name])
    yield from record.settings.items()
    for image in package.images:
        yield "image", image
    yield from package.metadata.items()


def metric_text(entry: Mapping[str, Any]) -> str:
    """Return `12.34 (11.90 to 12.80)`: a metric with its 95 % interval."""
    interval = f" ({entry['low']:.4g} to {entry['high']:.4g})" if {"low", "high"} <= entry.keys() else ""
    if layout.ENOUGH_PICTURES in entry:
        return f"{entry['value']:.4g} in {entry[layout.JUDGED_BY]}: {entry['pictures']} pictures are too few for FID"
    return f"{entry['value']:.4g}{interval}"


def hosts_text(package: ModelPackage) -> str:
    """Return `4 x ml.p4d.24xlarge`; empty where it is not known."""
    names = ("training_instance_count", "training_instance_type")
    values = [package.metadata[name] for name in names if name in package.metadata]
    return " x ".join(values) if len(values) == len(names) else ""


def plain_text(value: Any) -> str:
    """Return a text as it is, any other JSON value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


class ComparedValue(NamedTuple):
    name: str
    first: str
    second: str
    verdict: str = ""
    """Of the second against the first: `better`, `worse`, `no difference that the intervals show`."""


def compare(first: PackageRecord, second: PackageRecord) -> list[ComparedValue]:
    """Return the metrics with a verdict each, then throughput and cost, then everything in which the two differ."""
    rows = [ComparedValue("version", str(first.package.version), str(second.package.version))]
    rows.append(ComparedValue("status", first.package.status, second.package.status))
    rows += compare_metrics(first.entries, second.entries)
    rates, costs = (first.images_per_s, second.images_per_s), (first.training_usd, second.training_usd)
    rows.append(ComparedValue("images/s", *("" if rate is None else f"{rate:,.1f}" for rate in rates)))
    rows.append(ComparedValue("Train cost", *("" if usd is None else f"${usd:,.2f}" for usd in costs)))
    rows.append(ComparedValue("hosts", hosts_text(first.package), hosts_text(second.package)))
    one, two = _flat(first), _flat(second)
    texts = ((name, one.get(name, ""), two.get(name, "")) for name in dict.fromkeys([*one, *two]))
    return rows + [ComparedValue(*text) for text in texts if text[1] != text[2]]


def compare_metrics(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[ComparedValue]:
    """Yield the metrics of either, with a verdict on those of both."""
    for name in dict.fromkeys([*first, *second]):
        judged = verdict(name, first[name], second[name]) if name in first and name in second else ""
        was, now = (metric_text(own[name]) if name in own else "" for own in (first, second))
        yield ComparedValue(name, was, now, judged)


def verdict(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return whether the second value of a metric is better than the first beyond both 95 % intervals."""
    if name not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
        return ""
    if measured_as(name, first) != measured_as(name, second):
        return "measured otherwise: not to be compared"
    low, high = (first, second) if first["value"] <= second["value"] else (second, first)
    if low.get("high", low["value"]) >= high.get("low", high["value"]):
        return "no difference that the intervals show"
    return "better" if (second is low) == (name in LOWER_IS_BETTER) else "worse"


def measured_as(name: str, entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two values of a metric must share to be compared: an FID falls with its number of pictures."""
    return entry.get("features"), entry.get("resize"), entry.get("pictures") if name in FIDS else None


def judged_metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the model's own entries of metrics.json of which it is known whether lower is better."""
    entries = (metrics or {}).get("metrics") or {}
    return {key: entry for key, entry in entries.items() if key in LOWER_IS_BETTER + HIGHER_IS_BETTER}


def _flat(record: PackageRecord) -> dict[str, str]:
    """Return everything that describes a package, except what differs between any two."""
    data = {f"data {name}": plain_text(value) for name, value in record.data_manifest.items()}
    metadata = {name: value for name, value in record.package.metadata.items() if name in COMPARED}
    images = {"inference image": ", ".join(record.package.images)}
    return record.settings | data | metadata | images
