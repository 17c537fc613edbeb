"""Registers a pretrained model, so that it can be deployed and compared with one's own.

Reads the diffusers folder at data.pretrained_uri; writes a model package into a group of its own, which the rule that
promotes approved models does not watch.

    sd-pipeline models register-pretrained --stack sd-pipeline
    sd-pipeline promote latest --beside pretrained --share 0.1 --stack sd-pipeline
"""

from __future__ import annotations

import json
from typing import Any, Final

from botocore.exceptions import ClientError

from params.arguments import to_environment
from params.layout import SERVE_PREFIX
from params.programs import ServeArguments
from params.s3 import split_uri
from params.settings import Settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.models.registry import ModelPackage, PackageGroup
from pipeline_definition.session import Target

GROUP_SUFFIX: Final = "-pretrained"
INDEX_FILE: Final = "model_index.json"
# What a Stable Diffusion pipeline is made of; each part's weights are safetensors, and nothing else is loaded.
WEIGHTED_PARTS: Final = ("unet", "vae", "text_encoder")


def pretrained_group(group: str) -> str:
    """Return the group of the pretrained models that a group is compared with."""
    return group + GROUP_SUFFIX


def register_pretrained(settings: Settings, target: Target) -> ModelPackage:
    """Register the pretrained model behind the inference image, approved: it has been judged elsewhere.

    Raises OperatorError that names the part which the folder lacks.
    """
    uri = settings.data.pretrained_uri.rstrip("/") + "/"
    description = _checked(target, uri)
    served = settings.endpoint.model_dump(include=set(ServeArguments.model_fields))
    return PackageGroup(target, pretrained_group(settings.registry.group)).register(
        {
            "ModelPackageDescription": f"Pretrained {description}, as published",
            "ModelApprovalStatus": "Approved",
            "InferenceSpecification": {
                "Containers": [
                    {
                        "Image": settings.images.inference,
                        "ModelDataSource": {
                            "S3DataSource": {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
                        },
                        "Environment": to_environment(served, SERVE_PREFIX),
                    }
                ],
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
    except (ClientError, ValueError):
        raise OperatorError(f"{uri} has no {INDEX_FILE}: copy the model there as diffusers saves it") from None
    for part in WEIGHTED_PARTS:
        files = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}{part}/").get("Contents", [])
        if not any(item["Key"].endswith(".safetensors") for item in files):
            raise OperatorError(f"{uri}{part}/ has no weights in safetensors: it cannot be served; copy them there")
    return str(index.get("_class_name", "pipeline")) if isinstance(index, dict) else "pipeline"
