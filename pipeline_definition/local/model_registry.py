"""The model registry: model packages and their groups, with every member that a request gave.

It is kept here, for moto's drops CustomerMetadataProperties, and at any update the approval status.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline_definition.local.catalogue import Catalogue
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import RefusedRequestError, invalid
from pipeline_definition.local.records import Record, Records, page
from pipeline_definition.local.services import Services

_UPDATABLE = (
    *("ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelCard"),
    "ModelLifeCycle",
)
_LAST = "LocalLastVersion"
"""Member of a group's record: the number of its newest package, which may be deleted by now."""


class PackageGroups(Catalogue):
    hidden = (_LAST,)

    def __init__(self, records: Mapping[str, Records]) -> None:
        super().__init__(records, "model-package-group", "ModelPackageGroup")
        self._packages = records["model-package"]

    def add(self, request: Mapping[str, Any], **more: Any) -> Record:
        return super().add(request, ModelPackageGroupStatus="Completed", **more)

    def delete(self, request: Mapping[str, Any]) -> Record:
        """Answer DeleteModelPackageGroup; a group with packages is kept."""
        name = self.find(request["ModelPackageGroupName"])["ModelPackageGroupName"]
        if self._versions(name):
            raise RefusedRequestError("ConflictException", f"Model package group {name} still has model packages")
        return super().delete(request)

    def next_version(self, name: str) -> int:
        """Return the number of a group's next package: never one that a package had before."""
        last = max([int(self.find(name).get(_LAST, 0)), *self._versions(name)])
        self.records.update(name, **{_LAST: last + 1})
        return last + 1

    def _versions(self, name: str) -> list[int]:
        packages = self._packages.all()
        return [item["ModelPackageVersion"] for item in packages if item.get("ModelPackageGroupName") == name]


class ModelRegistry:
    def __init__(self, services: Services, approved: Callable[[Record], None] = lambda package: None) -> None:
        """Take the function to call when a package is approved, or registered as approved."""
        self._approved = approved
        self._packages = services.records["model-package"]
        self.groups = PackageGroups(services.records)

    def ensure_group(self, name: str) -> None:
        """Create a group unless it exists, as a RegisterModel step does."""
        if _last(name) not in self.groups.records:
            self.groups.create({"ModelPackageGroupName": _last(name)})

    def create_model_package(self, request: Mapping[str, Any]) -> Record:
        status = request.get("ModelApprovalStatus", "PendingManualApproval")
        group = request.get("ModelPackageGroupName")
        if bool(group) == bool(request.get("ModelPackageName")):
            raise invalid("Give either ModelPackageName or ModelPackageGroupName")
        record: Record = {**request, "CreationTime": time.time(), "ModelPackageStatus": "Completed"}
        if group:
            name = self.groups.find(group)["ModelPackageGroupName"]
            version = self.groups.next_version(name)
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
        return self._package(request["ModelPackageName"])

    def list_model_packages(self, request: Mapping[str, Any]) -> Record:
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
        removed = request.get("CustomerMetadataPropertiesToRemove", ())
        properties = record.get("CustomerMetadataProperties", {}) | request.get("CustomerMetadataProperties", {})
        properties = {key: value for key, value in properties.items() if key not in removed}
        if properties or "CustomerMetadataProperties" in record:
            changes["CustomerMetadataProperties"] = properties
        self._packages.update(record["ModelPackageArn"], **changes, LastModifiedTime=time.time())
        if changes.get("ModelApprovalStatus") == "Approved" != record.get("ModelApprovalStatus"):
            self._approved(record)
        return {"ModelPackageArn": record["ModelPackageArn"]}

    def delete_model_package(self, request: Mapping[str, Any]) -> Record:
        self._packages.delete(self._package(request["ModelPackageName"])["ModelPackageArn"])
        return {}

    def _package(self, name: str) -> Record:
        own_arn = name if name.startswith("arn:") else arn("model-package", name)
        return self._packages.get(own_arn, invalid(f"ModelPackage {own_arn} does not exist."))


def _last(name_or_arn: str) -> str:
    return name_or_arn.rsplit("/", 1)[-1]
