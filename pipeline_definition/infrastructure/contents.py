"""What a stack holds and what it costs: objects, model packages, images, billed resources, its endpoints.

Reads S3, SageMaker, ECR and CloudFormation; `empty` deletes objects and model packages.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from params.s3 import pages_unless_missing
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

# What is billed while it exists, by resource type. The S3 gateway endpoint is free.
BILLED = {
    "AWS::FSx::FileSystem": "FSx for Lustre, by the GiB and its throughput tier, used or not",
    "AWS::EC2::NatGateway": "NAT gateway, by the hour and by the GB in both directions",
    "AWS::EC2::VPCEndpoint": "interface endpoint, by the hour",
    "AWS::S3::Bucket": "bucket, by the GB with former versions",
    "AWS::ECR::Repository": "image repository, by the GB",
}
FREE = ("S3Endpoint",)
DELETE_BATCH = 1000


class StackContents:
    def __init__(self, target: Target, stack: str, outputs: Mapping[str, str]) -> None:
        self._target, self._stack, self._outputs = target, stack, outputs
        self._s3, self._sagemaker = target.client("s3"), target.client("sagemaker")
        self._bucket = outputs.get("BucketName", "")
        self._group = outputs.get("ModelPackageGroupName", "")

    def costs(self) -> list[str]:
        """Return a line for everything that is billed while it exists."""
        pages = self._target.client("cloudformation").get_paginator("list_stack_resources")
        inside = [
            f"{item['LogicalResourceId']} {item.get('PhysicalResourceId', '')}: {BILLED[item['ResourceType']]}"
            for item in pages.paginate(StackName=self._stack).search("StackResourceSummaries[]")
            if item["ResourceType"] in BILLED and item["LogicalResourceId"] not in FREE
        ]
        return inside + self.costs_outside()

    def costs_outside(self) -> list[str]:
        """Return a line for each endpoint outside the stack: the pipeline's and the production endpoint."""
        production = self._outputs.get("ProductionEndpoint", "")
        return [
            f"endpoint {name}, by the hour of each host; `aws sagemaker delete-endpoint --endpoint-name {name}` ends it"
            for name in self._sagemaker.get_paginator("list_endpoints").paginate().search("Endpoints[].EndpointName")
            if name == production or name.startswith(self._stack)
        ]

    def held(self) -> list[str]:
        """Return what would be lost for good: objects of the bucket, packages of the registry."""
        objects = [f"objects in s3://{self._bucket}"] if next(self._object_versions(), None) else []
        packages = self._packages()
        return objects + ([f"{len(packages)} model package(s) in {self._group}"] if packages else [])

    def empty(self, say: Callable[[str], None]) -> None:
        """Delete every object with all its versions, every unfinished upload and every model package."""
        for deleted in delete_versions(self._s3, self._bucket, self._object_versions()):
            say(f"deleted {deleted:,} object versions of s3://{self._bucket}")
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket)
        for page in pages_unless_missing(pages) if self._bucket else ():
            for item in page.get("Uploads", []):
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=item["Key"], UploadId=item["UploadId"])
        for arn in self._packages():
            self._sagemaker.delete_model_package(ModelPackageName=arn)
            say(f"deleted {arn}")

    def newest_images(self) -> dict[str, str]:
        """Return each repository's newest tagged image by digest: a new one cannot replace it during a run."""
        images, pages = {}, self._target.client("ecr").get_paginator("describe_images")
        for kind in ("Data", "Training", "Inference"):
            if uri := self._outputs.get(f"{kind}RepositoryUri", ""):
                about = {"repositoryName": uri.split("/", 1)[-1], "filter": {"tagStatus": "TAGGED"}}
                tagged = [one for page in pages_unless_missing(pages.paginate(**about)) for one in page["imageDetails"]]
                if newest := max(tagged, key=lambda image: image["imagePushedAt"], default=None):
                    images[f"{kind}Image"] = f"{uri}@{newest['imageDigest']}"
        return images

    def _object_versions(self) -> Iterator[dict[str, str]]:
        return object_versions(self._s3, self._bucket) if self._bucket else iter(())

    def _packages(self) -> list[str]:
        return package_arns(self._sagemaker, self._group) if self._group else []


def package_arns(sagemaker: Any, group: str) -> list[str]:
    """Return the ARNs of a group's model packages; none if the group does not exist yet."""
    pages = pages_unless_missing(sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group))
    return [item["ModelPackageArn"] for page in pages for item in page["ModelPackageSummaryList"]]


def object_versions(s3: Any, bucket: str, prefix: str = "") -> Iterator[dict[str, str]]:
    """Yield the key and the id of every version, and of every mark of a deletion, below a prefix of a bucket."""
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages_unless_missing(pages):
        for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            yield {"Key": item["Key"], "VersionId": item["VersionId"]}


def delete_versions(s3: Any, bucket: str, versions: Iterator[dict[str, str]]) -> Iterator[int]:
    """Delete versions for good; yield how many are gone. Raises OperatorError for the first that cannot be."""
    deleted = 0
    while batch := list(itertools.islice(versions, DELETE_BATCH)):
        failed = s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        for error in failed.get("Errors", [])[:1]:
            raise OperatorError(f"s3://{bucket}/{error['Key']} cannot be deleted: {error['Message']}")
        deleted += len(batch)
        yield deleted
