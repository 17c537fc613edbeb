"""How unfriendly the local control plane is: each switch is one way in which AWS is unlike a laptop, and is off.

Reads nothing, writes nothing. A parameter set turns switches on in `local.cloud:`; `sd-pipeline run-local` and
`sd-pipeline local up --params SET` bring them to the control plane. What AWS does, what the pipeline and the probe then
say: docs/operations.md, "A hostile cloud on this machine".
"""

from pydantic import Field

from params.model import Model


class Cloud(Model):
    """The switches of the local control plane."""

    hidden_gpus: str = Field("", pattern=r"^(ml\.(g|gr|p)\d[a-z0-9-]*\.[a-z0-9]+)?$")
    """GPU instance type, such as ml.g4dn.xlarge, that every host says it is, while torch sees no GPU: an old driver."""
    import_lag_s: float = Field(0.0, ge=0)
    """Files appear in the file system this long after their objects in S3."""
    denied: tuple[str, ...] = ()
    """Addresses, s3://bucket or s3://bucket/prefix, on which S3 answers the jobs' role with AccessDenied."""
    denied_actions: tuple[str, ...] = ()
    """Actions that IAM allows nobody, such as logs:GetLogEvents or sagemaker:CreateEndpoint."""
    empty_log_pages: bool = False
    """GetLogEvents answers an empty page before each page with lines."""
    throttled_logs: int = Field(0, ge=0)
    """Requests of each CloudWatch Logs operation that are refused before one is answered; a client tries five times."""
    throttled_api: int = Field(0, ge=0)
    """The same for SageMaker's operations."""
    tokens_honoured: bool = False
    """A request with the token of an earlier one of the same operation gets the earlier answer, and does nothing."""
    refused_members: tuple[str, ...] = ()
    """Members that SageMaker does not know yet, such as InstanceGroups: a definition or request with one is refused."""
    name_suffix: int = Field(0, ge=0, le=40)
    """Characters that a step appends to the endpoint configuration's name in its definition; above 63 it is refused."""
    spot_interruptions: int = Field(0, ge=0)
    """How often each managed spot job loses its hosts: after it has written a checkpoint, or after two seconds."""
    no_capacity: tuple[str, ...] = ()
    """Instance types, as patterns such as ml.p5*, that SageMaker has none of."""
    missing_endpoints: tuple[str, ...] = ()
    """Services as boto3 names them, such as logs or s3, whose address does not answer a job: no interface endpoint."""
