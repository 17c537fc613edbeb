"""The only place that makes boto3 and SageMaker sessions.

Reads the region from the parameter set and, for a local control plane, its address; writes nothing.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from sagemaker.core.workflow.pipeline_context import PipelineSession


@dataclass(frozen=True)
class Target:
    """Where commands go: an AWS region, or a control plane on this machine."""

    region: str
    endpoint_url: str | None = None
    """Address of the local control plane; None: AWS."""

    @property
    def is_local(self) -> bool:
        """Whether commands stay on this machine."""
        return self.endpoint_url is not None

    def boto_session(self) -> Any:
        """Return a boto3 session: AWS's own credential chain, or placeholders for the local control plane."""
        return placeholder_session(self.region) if self.is_local else boto3.Session(region_name=self.region)

    def client(self, service: str) -> Any:
        """Return a boto3 client with retries that suit an interactive command."""
        config = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=5, read_timeout=70)
        return self.boto_session().client(service, endpoint_url=self.endpoint_url, config=config)


def placeholder_session(region: str) -> boto3.Session:
    """Return what a local control plane accepts and a definition is built with: no secret is involved in either."""
    return boto3.Session(region_name=region, aws_access_key_id="local", aws_secret_access_key="local")


def offline_session(region: str, bucket: str) -> PipelineSession:
    """Return the session that a definition is built with: it captures requests and never sends one.

    Credentials are placeholders, so that nothing on the machine is looked up: no profile, no metadata service.
    """
    from sagemaker.core.workflow.pipeline_context import PipelineSession

    class OfflineSession(PipelineSession):  # type: ignore[misc]
        """A PipelineSession whose default bucket is a name, not something to look for or to create."""

        def default_bucket(self) -> str:
            return bucket

    return OfflineSession(boto_session=placeholder_session(region), default_bucket=bucket)


@contextmanager
def quiet_sdk(region: str) -> Iterator[None]:
    """Import and use the SageMaker SDK without what it does beside building a document.

    It raises NoRegionError at import when no region is set, asks IAM about the role at every build, sends telemetry,
    and warns about its own imports and about steps that will not be waited for.
    """
    os.environ.setdefault("AWS_DEFAULT_REGION", region)
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"sagemaker(\.|$)")
        # Python 3.12 and later, where the SDK was installed without being compiled.
        warnings.filterwarnings("ignore", category=SyntaxWarning)
        from sagemaker.core.telemetry import telemetry_logging

        telemetry_logging._send_telemetry_request = lambda *_, **__: None
        # Some of the SDK's loggers set their own level when they are made, so the parent's is not enough.
        for name in ("sagemaker", "sagemaker.config", "sagemaker.core.utils.utils"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
