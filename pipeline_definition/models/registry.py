"""Model packages: list, show, register, approve, reject.

Reads and writes the model registry through one boto3 client, on AWS or on the local control plane. A pretrained model,
the diffusers folder at data.pretrained_uri, gets a group of its own, which the rule that promotes approved models does
not watch: so it can be deployed, and compared with one's own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from params.arguments import to_environment
from params.families import INDEX_FILE, VAE, FamilyError, family_of
from params.layout import CLIP_SCORE_BELOW_APPROVED, FID_ABOVE_APPROVED, MODEL_ARCHIVE, SERVE_PREFIX
from params.parameter_names import APPROVED_MODEL, MODEL_PACKAGE_GROUP
from params.programs import ServeArguments
from params.s3 import split_uri, unless_missing
from params.settings import Settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.infrastructure.contents import package_arns
from pipeline_definition.jobs.planned import Values
from pipeline_definition.session import Target

# Ends the name of the group of the pretrained models that a group is compared with.
PRETRAINED_SUFFIX: Final = "-pretrained"


@dataclass(frozen=True)
class ModelPackage:
    arn: str
    version: int
    status: str
    created: str
    metadata: dict[str, str]
    """The numbers and addresses that were registered with it: 50 texts of 256 characters at most."""
    metrics_uri: str
    """Empty for a model that was not evaluated."""
    data_manifest_uri: str
    """Of the latents that it learnt from; empty for a model that came from elsewhere."""
    images: tuple[str, ...]
    """Inference images, with the digest where SageMaker resolved one."""
    reason: str
    """Why it was approved or rejected."""
    model_uri: str = ""
    """Address of its model.tar.gz; of its folder where it is served from one."""


class PackageGroup:
    def __init__(self, target: Target, group: str) -> None:
        self._sagemaker = target.client("sagemaker")
        self._group = group

    def list(self) -> list[ModelPackage]:
        """Return the group's packages, newest first; none if the group does not exist yet."""
        arns = package_arns(self._sagemaker, self._group)
        return sorted((self.show(arn) for arn in arns), key=lambda package: -package.version)

    def show(self, package: str) -> ModelPackage:
        """Return one package, given as its ARN, its version, or `latest`."""
        about = self._describe(self.arn(package))
        metrics = about.get("ModelMetrics") or {}
        containers = (about.get("InferenceSpecification") or {}).get("Containers", [])
        images, addresses = [], list[str]()
        for container in containers:
            image, digest = str(container.get("Image", "")), container.get("ImageDigest")
            images.append(f"{image} ({digest})" if digest and digest not in image else image)
            folder = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
            addresses.append(str(container.get("ModelDataUrl") or folder.get("S3Uri", "")))
        return ModelPackage(
            arn=about["ModelPackageArn"],
            version=int(about.get("ModelPackageVersion", 0)),
            status=about["ModelApprovalStatus"],
            created=about["CreationTime"].isoformat(timespec="seconds"),
            metadata=dict(about.get("CustomerMetadataProperties") or {}),
            metrics_uri=_uri_of(metrics.get("ModelQuality")),
            data_manifest_uri=_uri_of(metrics.get("ModelDataQuality")),
            images=tuple(images),
            reason=about.get("ApprovalDescription") or "",
            model_uri=next(filter(None, addresses), ""),
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
        decided = {"ModelApprovalStatus": status, "ApprovalDescription": reason}
        self._sagemaker.update_model_package(ModelPackageArn=arn, **decided)
        return self.show(arn)

    def arn(self, package: str) -> str:
        if package.startswith("arn:"):
            return package
        arns = {str(candidate.version): candidate.arn for candidate in self.list()}
        if package in arns or (package == "latest" and arns):
            return arns.get(package) or next(iter(arns.values()))
        versions = ", ".join(arns) or "none"
        raise OperatorError(f"group {self._group} has no model package {package!r}; versions: {versions}")

    def _describe(self, arn: str) -> dict[str, Any]:
        try:
            about: dict[str, Any] = self._sagemaker.describe_model_package(ModelPackageName=arn)
        except ClientError as error:
            raise OperatorError(f"{arn}: {error.response['Error']['Message']}") from None
        return about


def with_approved_model(target: Target, definition: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, str]:
    """Return the changes with the newest approved model's address, where the gate asks and the operator names none."""
    steps = json.dumps(definition["Steps"])
    is_asked = any(f'"metrics.{name}.' in steps for name in (FID_ABOVE_APPROVED, CLIP_SCORE_BELOW_APPROVED))
    if APPROVED_MODEL in changes or not is_asked:
        return dict(changes)
    group = Values(definition, changes).text(MODEL_PACKAGE_GROUP)
    address = PackageGroup(target, group).approved_model()
    return {**changes, APPROVED_MODEL: address} if address else dict(changes)


def register_pretrained(settings: Settings, target: Target) -> ModelPackage:
    """Register the pretrained model behind the inference image, approved: it has been judged elsewhere."""
    uri = settings.data.pretrained_uri.rstrip("/") + "/"
    description = _checked(target, uri)
    served = settings.endpoint.model_dump(include=set(ServeArguments.model_fields))
    folder = {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {
        "Image": settings.images.inference,
        "ModelDataSource": {"S3DataSource": folder},
        "Environment": to_environment(served, SERVE_PREFIX),
    }
    return PackageGroup(target, settings.registry.group + PRETRAINED_SUFFIX).register(
        {
            "ModelPackageDescription": f"Pretrained {description}, as published",
            "ModelApprovalStatus": "Approved",
            "InferenceSpecification": {
                "Containers": [container],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["image/png", "image/jpeg", "image/webp", "application/json"],
                "SupportedRealtimeInferenceInstanceTypes": [settings.endpoint.job.instance_type],
            },
            "CustomerMetadataProperties": {"source": uri, "inference_image": settings.images.inference},
        }
    )


def _checked(target: Target, uri: str) -> str:
    """Return the kind of pipeline at an address that holds a whole one."""
    s3 = target.client("s3")
    bucket, prefix = split_uri(uri, OperatorError)
    try:
        index: Any = json.loads(s3.get_object(Bucket=bucket, Key=prefix + INDEX_FILE)["Body"].read())
        family = family_of(index)
    except FamilyError as error:
        raise OperatorError(f"{uri}: {error}") from None
    except (ClientError, ValueError, AttributeError):
        raise OperatorError(f"{uri} has no {INDEX_FILE}: copy the model there as diffusers saves it") from None
    # Each part's weights are safetensors, and nothing else is loaded.
    for part in (of for of in (family.denoiser, VAE, *family.text.values()) if of not in family.optional):
        files = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}{part}/").get("Contents", [])
        if not any(item["Key"].endswith(".safetensors") for item in files):
            raise OperatorError(f"{uri}{part}/ has no weights in safetensors: it cannot be served; copy them there")
    return family.pipeline


def _uri_of(quality: Mapping[str, Any] | None) -> str:
    return str(((quality or {}).get("Statistics") or {}).get("S3Uri", ""))
