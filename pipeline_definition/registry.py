"""Model packages: list, show, approve, reject.

Reads and writes the model registry through one boto3 client, on AWS or on the local control plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target


class RegistryError(OperatorError):
    """A model package cannot be used: the message says which and how to mend it."""


@dataclass(frozen=True)
class ModelPackage:
    """One version of a model."""

    arn: str
    version: int
    status: str
    created: str
    metadata: dict[str, str]
    metrics_uri: str


class Registry:
    """The packages of one group."""

    def __init__(self, target: Target, group: str) -> None:
        self._sagemaker = target.client("sagemaker")
        self._group = group

    def list(self) -> list[ModelPackage]:
        """Return the group's packages, newest first; a group that does not exist yet has none."""
        try:
            pages = list(
                self._sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=self._group)
            )
        except ClientError as error:
            if "not exist" in str(error) or "ResourceNotFound" in str(error):
                return []
            raise
        arns = [item["ModelPackageArn"] for page in pages for item in page["ModelPackageSummaryList"]]
        return sorted((self.show(arn) for arn in arns), key=lambda package: -package.version)

    def show(self, package: str) -> ModelPackage:
        """Return one package, given as its ARN, its version, or `latest`.

        Raises RegistryError when there is no such package.
        """
        about = self._describe(self.arn(package))
        statistics = about.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
        return ModelPackage(
            arn=about["ModelPackageArn"],
            version=int(about.get("ModelPackageVersion", 0)),
            status=about["ModelApprovalStatus"],
            created=about["CreationTime"].isoformat(timespec="seconds"),
            metadata=dict(about.get("CustomerMetadataProperties") or {}),
            metrics_uri=statistics.get("S3Uri", ""),
        )

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
        raise RegistryError(f"group {self._group} has no model package {package!r}; versions: {versions}")

    def _describe(self, arn: str) -> dict[str, Any]:
        try:
            about: dict[str, Any] = self._sagemaker.describe_model_package(ModelPackageName=arn)
        except ClientError as error:
            raise RegistryError(f"{arn}: {error.response['Error']['Message']}") from None
        return about
