"""What a package carries: read from its addresses, fetched into a folder, compared with another's."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.errors import OperatorError
from pipeline_definition.models.package_record import PackageFiles, PackageRecord, compare, facts, verdict
from pipeline_definition.models.registry import PackageGroup
from tests.pipeline_definition.packages import GROUP, described, files_of, metric, target_of

METRICS = {"fid": metric(20.0, 1.0), "clip_score": metric(0.30, 0.005)}
SETTINGS = {"learning_rate": 1e-4, "seed": 0}


def record_of(package: dict[str, Any], files: dict[str, bytes]) -> PackageRecord:
    target = target_of(package, files=files)
    return PackageFiles(target).record(PackageGroup(target, "sd-pipeline").show(package["ModelPackageArn"]))


@pytest.fixture
def record() -> PackageRecord:
    return record_of(described(1), files_of(1, METRICS, SETTINGS))


def test_a_package_carries_everything_that_an_approver_asks_for(record: PackageRecord) -> None:
    said = dict(facts(record))
    assert said["fid"] == "20 (19 to 21)"
    assert said["data counts"] == '{"train": 100}'
    assert said["setting learning_rate"] == "0.0001"
    assert said["code_digest"] == "c" * 64
    assert said["image"].endswith(f"(sha256:{'d' * 64})")
    assert said["throughput"] == "1,100.5 images/s on 2 x ml.p4d.24xlarge"
    assert said["contact_sheet"] == "s3://bucket/1/evaluation/contact_sheet.png"
    assert record.training_usd is not None
    assert said["Train cost"].startswith(f"${record.training_usd:,.2f} on demand")


def test_the_cost_is_hosts_times_billed_hours_times_price(record: PackageRecord) -> None:
    from pipeline_definition.cost.prices import load_prices

    assert record.training_usd == pytest.approx(2 * 2 * load_prices().instance_hour_usd("ml.p4d.24xlarge"))


@pytest.mark.parametrize("lacking", ["training_instance_type", "billable_seconds"])
def test_a_cost_that_is_not_known_is_not_guessed(lacking: str) -> None:
    package = described(1)
    del package["CustomerMetadataProperties"][lacking]
    assert record_of(package, files_of(1, METRICS, SETTINGS)).training_usd is None


def test_a_throughput_that_training_did_not_measure_is_left_out() -> None:
    record = record_of(described(1, images_per_s="unknown"), files_of(1, METRICS, SETTINGS))
    assert "throughput" not in dict(facts(record))


def test_fetch_writes_every_file_and_its_pictures(tmp_path: Path) -> None:
    target = target_of(described(1), files=files_of(1, METRICS, SETTINGS))
    package = PackageGroup(target, "sd-pipeline").show(f"{GROUP}/1")
    written = PackageFiles(target).fetch(package, tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == {
        "metrics.json",
        "latents_manifest.json",
        "shards_manifest.json",
        "contact_sheet.png",
        "lineage.json",
        "training_log.jsonl",
        "samples/000000.png",
    }
    assert json.loads((tmp_path / "lineage.json").read_text()) == {"settings": SETTINGS}
    assert (tmp_path / "samples" / "000000.png").read_bytes() == b"\x89PNG one"


def test_a_file_that_was_deleted_is_named() -> None:
    files = files_of(1, METRICS, SETTINGS)
    del files["s3://bucket/1/evaluation/metrics.json"]
    with pytest.raises(OperatorError, match=r"1/evaluation/metrics\.json: The specified key does not exist"):
        record_of(described(1), files)


# Two packages.


def test_a_comparison_judges_the_second_and_shows_only_what_differs(record: PackageRecord) -> None:
    better = {"fid": metric(12.0, 1.0), "clip_score": metric(0.301, 0.005), "kid": metric(0.1)}
    other = record_of(
        described(2, training_instance_count="4", code_digest="e" * 64), files_of(2, better, {**SETTINGS, "seed": 1})
    )
    rows = {row.name: row for row in compare(record, other)}
    assert (rows["fid"].first, rows["fid"].second, rows["fid"].verdict) == ("20 (19 to 21)", "12 (11 to 13)", "better")
    assert rows["clip_score"].verdict == "no difference that the intervals show"
    assert (rows["kid"].first, rows["kid"].verdict) == ("", "")
    assert (rows["setting seed"].first, rows["setting seed"].second) == ("0", "1")
    assert rows["code_digest"].second == "e" * 64
    assert "setting learning_rate" not in rows
    assert "data counts" not in rows


@given(
    values=st.tuples(st.floats(0, 100), st.floats(0, 100)),
    widths=st.tuples(st.floats(0, 10), st.floats(0, 10)),
    name=st.sampled_from(["fid", "kid", "clip_score"]),
)
def test_the_verdict_turns_round_with_the_order(
    values: tuple[float, float], widths: tuple[float, float], name: str
) -> None:
    first, second = (metric(value, width) for value, width in zip(values, widths, strict=True))
    turned = {"better": "worse", "worse": "better"}
    found = verdict(name, first, second)
    assert verdict(name, second, first) == turned.get(found, found)
    overlap = first["low"] <= second["high"] and second["low"] <= first["high"]
    assert (found in turned) is not overlap
