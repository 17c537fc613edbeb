"""Model packages: list, show, register, approve, reject.

Reads and writes the model registry through one boto3 client, on AWS or on the local control plane.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from params.layout import CLIP_SCORE_BELOW_APPROVED, FID_ABOVE_APPROVED, MODEL_ARCHIVE
from params.parameter_names import APPROVED_MODEL, MODEL_PACKAGE_GROUP
from params.s3 import pages_unless_missing, unless_missing
from pipeline_definition.errors import OperatorError
from pipeline_definition.jobs.planned import Values
from pipeline_definition.session import Target


@dataclass(frozen=True)
class ModelPackage:
    """One version of a model."""

    arn: str
    version: int
    status: str
    created: str
    metadata: dict[str, str]
    """The numbers and addresses that were registered with it: 50 texts of 256 characters at most."""
    metrics_uri: str
    """metrics.json; empty for a model that was not evaluated."""
    data_manifest_uri: str
    """manifest.json of the latents that it learnt from; empty for a model that came from elsewhere."""
    images: tuple[str, ...]
    """Inference images, with the digest where SageMaker resolved one."""
    reason: str
    """The reason given when it was approved or rejected."""
    model_uri: str = ""
    """Address of its model.tar.gz; of its folder where it is served from one."""


class PackageGroup:
    """The packages of one group."""

    def __init__(self, target: Target, group: str) -> None:
        self._sagemaker = target.client("sagemaker")
        self._group = group

    def list(self) -> list[ModelPackage]:
        """Return the group's packages, newest first; none if the group does not exist yet."""
        pages = self._sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=self._group)
        arns = [
            item["ModelPackageArn"] for page in pages_unless_missing(pages) for item in page["ModelPackageSummaryList"]
        ]
        return sorted((self.show(arn) for arn in arns), key=lambda package: -package.version)

    def show(self, package: str) -> ModelPackage:
        """Return one package, given as its ARN, its version, or `latest`.

        Raises OperatorError when there is no such package.
        """
        about = self._describe(self.arn(package))
        metrics = about.get("ModelMetrics") or {}
        containers = (about.get("InferenceSpecification") or {}).get("Containers", [])
        return ModelPackage(
            arn=about["ModelPackageArn"],
            version=int(about.get("ModelPackageVersion", 0)),
            status=about["ModelApprovalStatus"],
            created=about["CreationTime"].isoformat(timespec="seconds"),
            metadata=dict(about.get("CustomerMetadataProperties") or {}),
            metrics_uri=_uri_of(metrics.get("ModelQuality")),
            data_manifest_uri=_uri_of(metrics.get("ModelDataQuality")),
            images=tuple(_image_of(container) for container in containers),
            reason=about.get("ApprovalDescription") or "",
            model_uri=next(filter(None, map(_model_uri_of, containers)), ""),
        )

    def approved_model(self) -> str:
        """Return the address of the newest approved package's archive; empty if there is none."""
        approved = (package.model_uri for package in self.list() if package.status == "Approved")
        return next((address for address in approved if address.endswith(MODEL_ARCHIVE)), "")

    def register(self, request: Mapping[str, Any]) -> ModelPackage:
        """Register a model as CreateModelPackage takes it, without the group; a missing group is created."""
        if unless_missing(self._sagemaker.describe_model_package_group, ModelPackageGroupName=self._group) is None:
            self._sagemaker.create_model_package_group(ModelPackageGroupName=self._group)
        made = self._sagemaker.create_model_package(ModelPackageGroupName=self._group, **request)
        return self.show(made["ModelPackageArn"])

    def decide(self, package: str, status: str, reason: str) -> ModelPackage:
        """Approve or reject a package; the reason is kept with it."""
        arn = self.arn(package)
        self._describe(arn)
        self._sagemaker.update_model_package(
            ModelPackageArn=arn, ModelApprovalStatus=status, ApprovalDescription=reason
        )
        return self.show(arn)

    def arn(self, package: str) -> str:
        """Return the ARN of a package given as its ARN, its version, or `latest`."""
        if package.startswith("arn:"):
            return package
        packages = self.list()
        if package == "latest" and packages:
            return packages[0].arn
        for candidate in packages:
            if str(candidate.version) == package:
                return candidate.arn
        versions = ", ".join(str(candidate.version) for candidate in packages) or "none"
        raise OperatorError(f"group {self._group} has no model package {package!r}; versions: {versions}")

    def _describe(self, arn: str) -> dict[str, Any]:
        try:
            about: dict[str, Any] = self._sagemaker.describe_model_package(ModelPackageName=arn)
        except ClientError as error:
            raise OperatorError(f"{arn}: {error.response['Error']['Message']}") from None
        return about


def with_approved_model(target: Target, definition: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, str]:
    """Return the changes of a start with the newest approved model's address, where the definition's gate asks for it.

    The operator's choice stays; while nothing is approved, the model is compared with itself. A run that is started
    from the console names the model itself, in ApprovedModel.
    """
    if APPROVED_MODEL in changes or not _is_asked(definition):
        return dict(changes)
    group = Values(definition, changes).text(MODEL_PACKAGE_GROUP)
    address = PackageGroup(target, group).approved_model()
    return {**changes, APPROVED_MODEL: address} if address else dict(changes)


def _is_asked(definition: Mapping[str, Any]) -> bool:
    steps = json.dumps(definition["Steps"])
    return any(f'"metrics.{name}.' in steps for name in (FID_ABOVE_APPROVED, CLIP_SCORE_BELOW_APPROVED))


def _model_uri_of(container: Mapping[str, Any]) -> str:
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    return str(container.get("ModelDataUrl") or source.get("S3Uri", ""))


def _uri_of(quality: Mapping[str, Any] | None) -> str:
    return str(((quality or {}).get("Statistics") or {}).get("S3Uri", ""))


def _image_of(container: Mapping[str, Any]) -> str:
    image, digest = str(container.get("Image", "")), container.get("ImageDigest")
    return f"{image} ({digest})" if digest and digest not in image else image
