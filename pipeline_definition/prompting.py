"""Prompt an endpoint: one request, one picture.

Reads SageMaker Runtime's InvokeEndpoint; writes a picture file.

    sd-pipeline prompt "a small red circle at the top on a blue background" --local
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

FORMATS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class PromptError(OperatorError):
    """The endpoint did not answer with a picture: the message says what it answered."""


def prompt_endpoint(target: Target, endpoint: str, request: dict[str, Any], path: Path) -> Path:
    """Send one request and write the picture.

    Raises PromptError that names the endpoint and its answer.
    """
    accept = FORMATS.get(path.suffix.lower())
    if accept is None:
        raise PromptError(f"{path.name}: a picture ends with one of {', '.join(FORMATS)}")
    try:
        response = target.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=endpoint,
            ContentType="application/json",
            Accept=accept,
            Body=json.dumps({name: value for name, value in request.items() if value is not None}),
        )
    except ClientError as error:
        raise PromptError(f"endpoint {endpoint}: {error.response['Error']['Message']}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(response["Body"].read())
    return path
