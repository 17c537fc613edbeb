"""Model packages as the registry answers them, and the files that they point at."""

import io
import json
import tarfile
from datetime import UTC, datetime
from typing import Any

from tests.pipeline_definition.fake_aws import FakeTarget, fake_s3

GROUP = "arn:aws:sagemaker:us-east-1:123456789012:model-package/sd-pipeline"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-inference:0a1b2c3d4e5f6071"


def metric(value: float, half_width: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - half_width, "high": value + half_width}


def described(version: int, **metadata: str) -> dict[str, Any]:
    """Return DescribeModelPackage's answer about a package whose files are those of `files_of`."""
    at = f"s3://bucket/{version}"
    said = {
        "dataset": "laion",
        "evaluation": f"{at}/evaluation",
        "contact_sheet": f"{at}/evaluation/contact_sheet.png",
        "samples": f"{at}/evaluation/samples",
        "shards_manifest": f"{at}/shards/manifest.json",
        "training_record": f"{at}/output.tar.gz",
        "training_instance_type": "ml.p4d.24xlarge",
        "training_instance_count": "2",
        "billable_seconds": "7200",
        "images_per_s": "1100.5",
        "code_digest": "c" * 64,
        **metadata,
    }
    return {
        "ModelPackageArn": f"{GROUP}/{version}",
        "ModelPackageVersion": version,
        "ModelPackageGroupName": "sd-pipeline",
        "ModelApprovalStatus": "PendingManualApproval",
        "CreationTime": datetime(2026, 11, version, tzinfo=UTC),
        "CustomerMetadataProperties": said,
        "ModelMetrics": {
            "ModelQuality": {
                "Statistics": {"ContentType": "application/json", "S3Uri": f"{at}/evaluation/metrics.json"}
            },
            "ModelDataQuality": {
                "Statistics": {"ContentType": "application/json", "S3Uri": f"{at}/latents/manifest.json"}
            },
        },
        "InferenceSpecification": {"Containers": [{"Image": IMAGE, "ImageDigest": "sha256:" + "d" * 64}]},
    }


def files_of(version: int, metrics: dict[str, Any], settings: dict[str, Any]) -> dict[str, bytes]:
    at = f"s3://bucket/{version}"
    model = {"settings": settings, "code_digest": "c" * 64, "images_per_s": 1100.5}
    return {
        f"{at}/evaluation/metrics.json": _json({"metrics": metrics, "model": model, "fid_features": "inception"}),
        f"{at}/evaluation/contact_sheet.png": b"\x89PNG sheet",
        f"{at}/evaluation/samples/000000.png": b"\x89PNG one",
        f"{at}/evaluation/samples/notes.txt": b"no picture",
        f"{at}/latents/manifest.json": _json({"resolution_px": 256, "counts": {"train": 100}, "shards": [{}] * 3}),
        f"{at}/shards/manifest.json": _json({"kept": 100}),
        f"{at}/output.tar.gz": _tar({"lineage.json": _json({"settings": settings}), "training_log.jsonl": b"{}\n"}),
    }


def target_of(*packages: dict[str, Any], files: dict[str, bytes]) -> FakeTarget:
    by_arn = {package["ModelPackageArn"]: package for package in packages}
    sagemaker = {"describe_model_package": lambda ModelPackageName: by_arn[ModelPackageName]}  # noqa: N803
    return FakeTarget(answers={"sagemaker": sagemaker, "s3": fake_s3(files)})


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _tar(members: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return whole.getvalue()
