"""The versions of a group with their metrics, and the gate's lines in the package's metadata."""

import json
from pathlib import Path
from typing import Any

from pipeline_definition.artifacts import Artifacts
from pipeline_definition.models.versions import MAX_VERSIONS, trend_table, versions_of, with_versions
from tests.pipeline_definition.fake_aws import FakeTarget, fake_s3
from tests.pipeline_definition.packages import described, files_of, metric
from tests.pipeline_definition.report import example_runs


class Registry:
    """A group of packages, of which the first ones are approved; it keeps what is changed."""

    def __init__(self, versions: int, approved: int = 0, refuses: bool = False) -> None:
        self.noted: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.packages = {}
        for version in range(1, versions + 1):
            about = described(version)
            about["ModelApprovalStatus"] = "Approved" if version <= approved else "PendingManualApproval"
            self.packages[about["ModelPackageArn"]] = about
            self.files |= files_of(version, {"fid": metric(40.0 - version, 1.0), "fid_real": metric(1.0)}, {})
        answers: dict[str, Any] = {
            "list_model_packages": self._listed,
            "describe_model_package": lambda ModelPackageName: self.packages[ModelPackageName],  # noqa: N803
        }
        if not refuses:
            answers["update_model_package"] = self._update
        self.target = FakeTarget(answers={"sagemaker": answers, "s3": fake_s3(self.files)})

    def _listed(self, **_: Any) -> dict[str, Any]:
        keys = ("ModelPackageArn", "CreationTime")
        listed = [{key: about[key] for key in keys} for about in self.packages.values()]
        return {"ModelPackageSummaryList": [{**one, "ModelPackageStatus": "Completed"} for one in listed]}

    def _update(self, **request: Any) -> dict[str, Any]:
        self.noted = request
        return {"ModelPackageArn": request["ModelPackageArn"]}


def test_the_newest_versions_come_with_their_own_metrics_and_the_approved_one_with_them_oldest_first() -> None:
    registry = Registry(12, approved=2)
    found = versions_of(registry.target, "sd-pipeline")
    assert [one["version"] for one in found] == [2, *range(13 - MAX_VERSIONS, 13)]
    assert found[0] == {"version": 2, "status": "Approved", "metrics": {"fid": metric(38.0, 1.0)}}
    table = trend_table(found)
    assert table.headers[:3] == ("metric by version", "2 approved", "5")
    assert table.rows[0][:3] == ("FID", "38.0", "35.0")


def test_a_version_whose_metrics_are_gone_says_so_and_hides_no_other() -> None:
    registry = Registry(2)
    del registry.files["s3://bucket/1/evaluation/metrics.json"]
    first, second = versions_of(registry.target, "sd-pipeline")
    assert first["metrics"] == {} and "1/evaluation/metrics.json" in first["problem"]
    assert second["metrics"] == {"fid": metric(38.0, 1.0)} and "problem" not in second


def test_the_gates_lines_are_noted_with_the_package_in_words_that_the_registry_takes(tmp_path: Path) -> None:
    registry = Registry(3)
    artifacts = with_versions(registry.target, Artifacts.load(example_runs.full_run(tmp_path)))
    # The run began on 24 November: these versions were registered before it.
    assert [one["version"] for one in (artifacts.versions or {})["versions"]] == [1, 2, 3]
    assert registry.noted["ModelPackageArn"] == example_runs.MODEL_PACKAGE["arn"]
    assert registry.noted["CustomerMetadataProperties"] == {
        "gate_fid": "met / value 9.11 / interval 8.21 to 10.30 / limit at most 25",
        "gate_clip_score": "met / value 0.811 / interval 0.792 to 0.829 / limit at least 0.6",
    }


def test_versions_after_the_run_are_none_of_its_past(tmp_path: Path) -> None:
    registry = Registry(28)
    artifacts = with_versions(registry.target, Artifacts.load(example_runs.full_run(tmp_path)))
    assert (artifacts.versions or {})["versions"][-1]["version"] == 24


def test_a_run_that_missed_the_gate_has_the_versions_and_notes_nothing(tmp_path: Path) -> None:
    registry = Registry(2)
    artifacts = with_versions(registry.target, Artifacts.load(example_runs.missed_run(tmp_path)))
    assert len((artifacts.versions or {})["versions"]) == 2
    assert registry.noted == {}


def test_a_registry_that_refuses_is_told_among_what_was_left_out(tmp_path: Path) -> None:
    registry = Registry(2, refuses=True)
    artifacts = with_versions(registry.target, Artifacts.load(example_runs.full_run(tmp_path)))
    assert "not authorized" in artifacts.execution["left_out"]["versions.json"]
    assert json.loads((tmp_path / "execution.json").read_text())["status"] == "Succeeded"
    assert len((artifacts.versions or {})["versions"]) == 2


def test_a_run_without_metrics_asks_the_registry_nothing(tmp_path: Path) -> None:
    artifacts = Artifacts.load(example_runs.broken_run(tmp_path))
    assert with_versions(FakeTarget(), artifacts) is artifacts
