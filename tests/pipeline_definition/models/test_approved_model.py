"""A start finds the approved model that its gate compares with."""

import json
from typing import Any

import pytest

from params.settings import parse_settings
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.models.registry import ModelPackage, PackageGroup, with_approved_model
from tests.pipeline_definition.fake_aws import FakeTarget
from tests.pipeline_definition.packages import described

PARAMETERS = [{"Name": "ModelPackageGroup", "Type": "String", "DefaultValue": "sd-pipeline"}]
ARCHIVE = "s3://bucket/model/laion/train-{}/output/model.tar.gz"
ASKING = {"Parameters": PARAMETERS, "Steps": [{"LeftValue": {"Path": "metrics.fid_above_approved.high"}}]}
NOT_ASKING = {"Parameters": PARAMETERS, "Steps": [{"LeftValue": {"Path": "metrics.fid.value"}}]}


def answer(version: int, status: str, **container: Any) -> dict[str, Any]:
    about = described(version)
    about["ModelApprovalStatus"] = status
    about["InferenceSpecification"]["Containers"][0] |= container or {"ModelDataUrl": ARCHIVE.format(version)}
    return about


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> FakeTarget:
    """A registry with, newest first, a rejected package, an approved folder, and two approved archives."""
    source = {"S3Uri": "s3://bucket/folder/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    folder = {"ModelDataSource": {"S3DataSource": source}}
    packages = [answer(4, "Rejected"), answer(3, "Approved", **folder), answer(2, "Approved"), answer(1, "Approved")]
    by_arn = {package["ModelPackageArn"]: package for package in packages}

    def listed(registry: PackageGroup) -> list[ModelPackage]:
        return [registry.show(arn) for arn in by_arn]

    monkeypatch.setattr(PackageGroup, "list", listed)
    describe = {"describe_model_package": lambda ModelPackageName: by_arn[ModelPackageName]}  # noqa: N803
    return FakeTarget(answers={"sagemaker": describe})


def test_the_newest_approved_archive_is_filled_in(target: FakeTarget) -> None:
    filled = with_approved_model(target, ASKING, {"MaxFid": "20"})
    assert filled == {"MaxFid": "20", "ApprovedModel": ARCHIVE.format(2)}


def test_a_gate_that_does_not_ask_and_an_operator_who_says_are_left_alone(target: FakeTarget) -> None:
    assert with_approved_model(target, NOT_ASKING, {}) == {}
    assert with_approved_model(target, ASKING, {"ApprovedModel": "none"}) == {"ApprovedModel": "none"}


def test_without_an_approved_model_nothing_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackageGroup, "list", lambda _: [])
    assert with_approved_model(FakeTarget(), ASKING, {}) == {}


@pytest.mark.parametrize("metric", ["max_fid_above_approved", "max_clip_score_below_approved"])
def test_a_built_definition_is_recognised(target: FakeTarget, metric: str) -> None:
    definition = json.loads(build_definition(parse_settings(f"gate: {{{metric}: 0.1}}", "x.yaml")))
    assert with_approved_model(target, definition, {}) == {"ApprovedModel": ARCHIVE.format(2)}
