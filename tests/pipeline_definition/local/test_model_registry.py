from pathlib import Path
from typing import Any, cast

import pytest

from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.model_registry import ModelRegistry
from pipeline_definition.local.records import Records
from pipeline_definition.local.services import Services

PACKAGE: dict[str, Any] = {
    "ModelPackageGroupName": "group",
    "ModelApprovalStatus": "PendingManualApproval",
    "CustomerMetadataProperties": {"fid": "3.5", "data": "laion"},
    "ModelLifeCycle": {"Stage": "Development", "StageStatus": "Pending"},
}


class Stored:
    """The two kinds of records that a registry needs."""

    def __init__(self, folder: Path) -> None:
        names = ("model-package", "model-package-group")
        self.records = {name: Records(folder / name) for name in names}


def registry(folder: Path) -> ModelRegistry:
    return ModelRegistry(cast(Services, Stored(folder)))


def created(own: ModelRegistry, **changes: Any) -> str:
    return str(own.create_model_package({**PACKAGE, **changes})["ModelPackageArn"])


@pytest.fixture
def own(tmp_path: Path) -> ModelRegistry:
    made = registry(tmp_path)
    made.groups.create({"ModelPackageGroupName": "group"})
    return made


def test_a_package_keeps_every_member_through_a_restart(own: ModelRegistry, tmp_path: Path) -> None:
    arn = created(own)
    found = registry(tmp_path).describe_model_package({"ModelPackageName": arn})
    assert {key: found[key] for key in PACKAGE} == PACKAGE
    assert (found["ModelPackageVersion"], found["ModelPackageStatus"]) == (1, "Completed")


def test_an_update_changes_only_what_it_names(own: ModelRegistry) -> None:
    arn = created(own)
    own.update_model_package({"ModelPackageArn": arn, "ModelApprovalStatus": "Approved", "ApprovalDescription": "good"})
    own.update_model_package(
        {
            "ModelPackageArn": arn,
            "CustomerMetadataProperties": {"fid": "3.4"},
            "CustomerMetadataPropertiesToRemove": ["data"],
        }
    )
    found = own.describe_model_package({"ModelPackageName": arn})
    assert (found["ModelApprovalStatus"], found["ApprovalDescription"]) == ("Approved", "good")
    assert found["CustomerMetadataProperties"] == {"fid": "3.4"}
    assert found["ModelLifeCycle"] == PACKAGE["ModelLifeCycle"]


def test_versions_count_up_and_are_not_given_twice(own: ModelRegistry) -> None:
    assert [created(own).rsplit("/", 1)[1] for _ in range(3)] == ["1", "2", "3"]
    own.delete_model_package({"ModelPackageName": "arn:aws:sagemaker:us-east-1:123456789012:model-package/group/2"})
    assert created(own).endswith("/4")


def test_packages_are_listed_newest_first_and_by_status(own: ModelRegistry) -> None:
    for status in ("Approved", "Rejected", "Approved"):
        created(own, ModelApprovalStatus=status)
    request = {"ModelPackageGroupName": "group", "ModelApprovalStatus": "Approved"}
    versions = [p["ModelPackageVersion"] for p in own.list_model_packages(request)["ModelPackageSummaryList"]]
    assert versions == [3, 1]
    first = own.list_model_packages({"ModelPackageGroupName": "group", "MaxResults": 2})
    rest = own.list_model_packages({"ModelPackageGroupName": "group", "MaxResults": 2, "NextToken": first["NextToken"]})
    assert [len(first["ModelPackageSummaryList"]), len(rest["ModelPackageSummaryList"])] == [2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ModelPackageGroupName": "other"}, "Could not find model-package-group.*/other"),
        ({"ModelPackageName": "name"}, "either"),
    ],
)
def test_a_bad_package_is_refused(own: ModelRegistry, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusedRequestError, match=message):
        created(own, **changes)


def test_a_group_with_packages_is_kept(own: ModelRegistry) -> None:
    created(own)
    with pytest.raises(RefusedRequestError, match="still has"):
        own.groups.delete({"ModelPackageGroupName": "group"})
