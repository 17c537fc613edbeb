"""Which models are compared: every variant of one endpoint, or several endpoints.

Reads DescribeEndpoint and DescribeEndpointConfig, and the price file; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from botocore.exceptions import ClientError

from pipeline_definition.cost.prices import load_prices
from pipeline_definition.errors import OperatorError
from pipeline_definition.prompting.comparison import Contender
from pipeline_definition.prompting.endpoint import SageMakerEndpoint, ServerEndpoint, is_address
from pipeline_definition.session import Target


class ContenderError(OperatorError):
    """There is nothing to compare: the message says what is missing and the fix."""


def contenders_of(target: Callable[[], Target], endpoints: Sequence[str], variants: Sequence[str]) -> list[Contender]:
    """Return what is compared: several endpoints, by name or address, or the variants of one; `variants` chooses some.

    Raises ContenderError where that is fewer than two.
    """
    if len(endpoints) == 1 and not is_address(endpoints[0]):
        contenders = _variants(target(), endpoints[0], variants)
    elif variants:
        raise ContenderError("--variant chooses among the variants of one endpoint: give one --endpoint, by its name")
    else:
        contenders = [_endpoint(target, name) for name in endpoints]
    if len(contenders) < 2:
        raise ContenderError(
            f"{', '.join(endpoints)}: one model alone cannot be compared; name a second --endpoint, or put the generic "
            "model next to it with `sd-pipeline promote latest --beside pretrained`"
        )
    return contenders


def _variants(target: Target, endpoint: str, chosen: Sequence[str]) -> list[Contender]:
    types = _instance_types(target, endpoint)
    unknown = [name for name in chosen if name not in types]
    if unknown:
        raise ContenderError(f"endpoint {endpoint} has no variant {unknown[0]!r}; it has {', '.join(types)}")
    return [
        Contender(
            name, SageMakerEndpoint(target, endpoint, name), types[name], _usd_per_hour(target.region, types[name])
        )
        for name in chosen or types
    ]


def _endpoint(target: Callable[[], Target], name: str) -> Contender:
    if is_address(name):
        return Contender(name, ServerEndpoint(name))
    where = target()
    instance_type = next(iter(_instance_types(where, name).values()))
    return Contender(name, SageMakerEndpoint(where, name), instance_type, _usd_per_hour(where.region, instance_type))


def _instance_types(target: Target, endpoint: str) -> dict[str, str]:
    """Return the instance type of each variant."""
    sagemaker = target.client("sagemaker")
    try:
        config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    except ClientError as error:
        raise ContenderError(f"endpoint {endpoint}: {error.response['Error']['Message']}") from None
    return {variant["VariantName"]: variant.get("InstanceType", "") for variant in variants}


def _usd_per_hour(region: str, instance_type: str) -> float | None:
    return load_prices().in_region(region, instance_type) or None
