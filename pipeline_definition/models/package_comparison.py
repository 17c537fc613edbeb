"""Compares two model packages: which is better beyond the metrics' intervals, and in what they differ.

Reads two package records; writes nothing.

    sd-pipeline models compare 3 latest
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from params.layout import CLIP_FID, CLIP_SCORE, FID, KID
from pipeline_definition.models.package_record import PackageRecord, hosts_text, metric_text, plain_text

LOWER_IS_BETTER: Final = (FID, CLIP_FID, KID)
HIGHER_IS_BETTER: Final = (CLIP_SCORE,)


@dataclass(frozen=True)
class ComparedValue:
    """One line of a comparison."""

    name: str
    first: str
    second: str
    verdict: str = ""
    """Of the second against the first: `better`, `worse`, `no difference that the intervals show`."""


def compare(first: PackageRecord, second: PackageRecord) -> list[ComparedValue]:
    """Return the metrics with a verdict each, then throughput and cost, then everything in which the two differ."""
    return [
        ComparedValue("version", str(first.package.version), str(second.package.version)),
        ComparedValue("status", first.package.status, second.package.status),
        *_metrics(first, second),
        *_figures(first, second),
        *_differences(first, second),
    ]


def verdict(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return whether the second value of a metric is better than the first beyond both 95 % intervals."""
    if name not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
        return ""
    low, high = (first, second) if first["value"] <= second["value"] else (second, first)
    if low.get("high", low["value"]) >= high.get("low", high["value"]):
        return "no difference that the intervals show"
    return "better" if (second is low) == (name in LOWER_IS_BETTER) else "worse"


def _metrics(first: PackageRecord, second: PackageRecord) -> Iterator[ComparedValue]:
    one, two = (record.metrics.get("metrics") or {} for record in (first, second))
    for name in dict.fromkeys([*one, *two]):
        if name in one and name in two:
            judged = verdict(name, one[name], two[name])
            yield ComparedValue(name, metric_text(one[name]), metric_text(two[name]), judged)
        else:
            yield ComparedValue(name, *(metric_text(side[name]) if name in side else "" for side in (one, two)))
    features = [str(record.metrics.get("fid_features", "")) for record in (first, second)]
    if all(features) and features[0] != features[1]:
        yield ComparedValue("FID features", features[0], features[1], "FID cannot be compared")


def _figures(first: PackageRecord, second: PackageRecord) -> Iterator[ComparedValue]:
    records = (first, second)
    yield ComparedValue("images/s", *(_number(record.images_per_s, "{:,.1f}") for record in records))
    yield ComparedValue("Train cost", *(_number(record.training_usd, "${:,.2f}") for record in records))
    yield ComparedValue("hosts", *(hosts_text(record.package) for record in records))


def _differences(first: PackageRecord, second: PackageRecord) -> Iterator[ComparedValue]:
    one, two = _flat(first), _flat(second)
    for name in dict.fromkeys([*one, *two]):
        if one.get(name) != two.get(name):
            yield ComparedValue(name, one.get(name, ""), two.get(name, ""))


def _flat(record: PackageRecord) -> dict[str, str]:
    """Return everything that describes a package, except what differs between any two."""
    settings = {f"setting {name}": plain_text(value) for name, value in (record.model.get("settings") or {}).items()}
    data = {f"data {name}": plain_text(value) for name, value in record.data_manifest.items()}
    metadata = {name: value for name, value in record.package.metadata.items() if name in _COMPARED}
    images = {"inference image": ", ".join(record.package.images)}
    return settings | data | metadata | images


_COMPARED: Final = ("dataset", "training_samples", "global_batch_size", "training_image", "code_digest", "source")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
