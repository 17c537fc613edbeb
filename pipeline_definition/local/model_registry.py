"""The model registry: model packages and their groups, with every member that a request gave.

moto's registry drops members (CustomerMetadataProperties) and forgets the approval status when something else is
updated, so the registry is kept here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline_definition.jobs.request_shapes import choices
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import RefusedRequestError, invalid
from pipeline_definition.local.records import Record, page
from pipeline_definition.local.services import Services

_UPDATABLE = (
    *("ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelCard"),
    "ModelLifeCycle",
)


class ModelRegistry:
    """All model packages and groups."""

    def __init__(self, services: Services, approved: Callable[[Record], None] = lambda package: None) -> None:
        """Take the function to call when a package is approved, or registered as approved."""
        self._approved = approved
        self._packages = services.records["model-package"]
        self._groups = services.records["model-package-group"]

    def create_model_package_group(self, request: Mapping[str, Any]) -> Record:
        """Answer CreateModelPackageGroup."""
        name = request["ModelPackageGroupName"]
        if name in self._groups:
            raise invalid(f"Model Package Group already exists: {arn('model-package-group', name)}")
        record = {
            **request,
            "ModelPackageGroupArn": arn("model-package-group", name),
            "ModelPackageGroupStatus": "Completed",
            "CreationTime": time.time(),
        }
        self._groups.put(name, record)
        return {"ModelPackageGroupArn": record["ModelPackageGroupArn"]}

    def ensure_group(self, name: str) -> None:
        """Create a group unless it exists, as a RegisterModel step does."""
        if _last(name) not in self._groups:
            self.create_model_package_group({"ModelPackageGroupName": _last(name)})

    def describe_model_package_group(self, request: Mapping[str, Any]) -> Record:
        """Answer DescribeModelPackageGroup."""
        return self._group(request["ModelPackageGroupName"])

    def list_model_package_groups(self, request: Mapping[str, Any]) -> Record:
        """Answer ListModelPackageGroups."""
        return page("ListModelPackageGroups", request, self._groups.all(), "ModelPackageGroupName")

    def delete_model_package_group(self, request: Mapping[str, Any]) -> Record:
        """Answer DeleteModelPackageGroup; a group with packages is kept."""
        name = self._group(request["ModelPackageGroupName"])["ModelPackageGroupName"]
        if self._versions(name):
            raise RefusedRequestError("ConflictException", f"Model package group {name} still has model packages")
        self._groups.delete(name)
        return {}

    def create_model_package(self, request: Mapping[str, Any]) -> Record:
        """Answer CreateModelPackage."""
        status = request.get("ModelApprovalStatus", "PendingManualApproval")
        _check_status(status)
        group = request.get("ModelPackageGroupName")
        if bool(group) == bool(request.get("ModelPackageName")):
            raise invalid("Give either ModelPackageName or ModelPackageGroupName")
        record: Record = {**request, "CreationTime": time.time(), "ModelPackageStatus": "Completed"}
        if group:
            name = self._group(group)["ModelPackageGroupName"]
            version = 1 + max((package["ModelPackageVersion"] for package in self._versions(name)), default=0)
            own_arn = arn("model-package", f"{name}/{version}")
            record |= {"ModelPackageGroupName": name, "ModelPackageVersion": version, "ModelApprovalStatus": status}
        else:
            own_arn = arn("model-package", request["ModelPackageName"])
        details = {"ValidationStatuses": [], "ImageScanStatuses": [{"Name": own_arn, "Status": "NotStarted"}]}
        record |= {"ModelPackageArn": own_arn, "ModelPackageStatusDetails": details}
        self._packages.put(own_arn, record)
        if group and status == "Approved":
            self._approved(record)
        return {"ModelPackageArn": own_arn}

    def describe_model_package(self, request: Mapping[str, Any]) -> Record:
        """Answer DescribeModelPackage."""
        return self._package(request["ModelPackageName"])

    def list_model_packages(self, request: Mapping[str, Any]) -> Record:
        """Answer ListModelPackages."""
        group, wanted = request.get("ModelPackageGroupName"), request.get("ModelApprovalStatus")
        kind = request.get("ModelPackageType", "Versioned" if group else "Unversioned")
        packages = [
            record
            for record in self._packages.all()
            if (group is None or record.get("ModelPackageGroupName") == _last(group))
            and wanted in (None, record.get("ModelApprovalStatus"))
            and kind in ("Both", "Versioned" if "ModelPackageVersion" in record else "Unversioned")
        ]
        name = "ModelPackageGroupName" if kind == "Versioned" else "ModelPackageName"
        # Two packages may have been made in one second: then the version decides.
        packages.sort(key=lambda record: record.get("ModelPackageVersion", 0))
        return page("ListModelPackages", request, packages, name)

    def update_model_package(self, request: Mapping[str, Any]) -> Record:
        """Answer UpdateModelPackage: only what is given changes."""
        record = self._package(request["ModelPackageArn"])
        changes = {key: request[key] for key in _UPDATABLE if key in request}
        if "ModelApprovalStatus" in changes:
            _check_status(changes["ModelApprovalStatus"])
        removed = request.get("CustomerMetadataPropertiesToRemove", ())
        properties = record.get("CustomerMetadataProperties", {}) | request.get("CustomerMetadataProperties", {})
        properties = {key: value for key, value in properties.items() if key not in removed}
        if properties or "CustomerMetadataProperties" in record:
            changes["CustomerMetadataProperties"] = properties
        added = request.get("AdditionalInferenceSpecificationsToAdd")
        if added:
            before = record.get("AdditionalInferenceSpecifications", [])
            changes["AdditionalInferenceSpecifications"] = [*before, *added]
        self._packages.update(record["ModelPackageArn"], **changes, LastModifiedTime=time.time())
        if changes.get("ModelApprovalStatus") == "Approved" != record.get("ModelApprovalStatus"):
            self._approved(record)
        return {"ModelPackageArn": record["ModelPackageArn"]}

    def delete_model_package(self, request: Mapping[str, Any]) -> Record:
        """Answer DeleteModelPackage."""
        self._packages.delete(self._package(request["ModelPackageName"])["ModelPackageArn"])
        return {}

    def _versions(self, group: str) -> list[Record]:
        return [record for record in self._packages.all() if record.get("ModelPackageGroupName") == group]

    def _group(self, name: str) -> Record:
        own_arn = arn("model-package-group", _last(name))
        return self._groups.get(_last(name), invalid(f"ModelPackageGroup {own_arn} does not exist."))

    def _package(self, name: str) -> Record:
        own_arn = name if name.startswith("arn:") else arn("model-package", name)
        return self._packages.get(own_arn, invalid(f"ModelPackage {own_arn} does not exist."))


def _last(name_or_arn: str) -> str:
    return name_or_arn.rsplit("/", 1)[-1]


def _check_status(status: str) -> None:
    known = choices("ModelApprovalStatus")
    if status not in known:
        raise invalid(f"Value '{status}' at 'modelApprovalStatus' is not one of: {', '.join(known)}")
