"""What moto's SageMaker lacks for a promotion: UpdateEndpoint, which refuses what SageMaker's own refuses."""

from typing import Any

import pytest
from moto.core.responses import ActionResult
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeEndpoint
from moto.sagemaker.responses import SageMakerResponse


def add_update_endpoint(monkeypatch: pytest.MonkeyPatch, rolls_back: bool = False) -> list[dict[str, Any]]:
    """Teach moto UpdateEndpoint; return the list to which each request is added.

    A traffic shift between different variants is refused, as SageMaker does:
    https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-exclusions.html
    With `rolls_back`, a guarded update leaves the endpoint as it was.
    """
    requests: list[dict[str, Any]] = []

    def update_endpoint(self: Any) -> ActionResult:
        names = ("EndpointName", "EndpointConfigName", "DeploymentConfig")
        request = {name: self._get_param(name) for name in names if self._get_param(name) is not None}
        backend = self.sagemaker_backend
        if request["EndpointName"] not in backend.endpoints:
            raise ValidationError(message=f"Could not find endpoint {request['EndpointName']}.")
        former = backend.endpoints[request["EndpointName"]]
        variants = backend.describe_endpoint_config(request["EndpointConfigName"])["ProductionVariants"]
        same = {v["VariantName"] for v in variants} == {v["VariantName"] for v in former.production_variants}
        if "DeploymentConfig" in request and not same:
            raise ValidationError(message="The new endpoint configuration must have the same variant names")
        requests.append(request)
        if not (rolls_back and "DeploymentConfig" in request):
            backend.endpoints[request["EndpointName"]] = _endpoint(former, request["EndpointConfigName"], variants)
        return ActionResult({"EndpointArn": former.arn})

    monkeypatch.setattr(SageMakerResponse, "update_endpoint", update_endpoint, raising=False)
    return requests


def _endpoint(former: Any, config: str, variants: Any) -> FakeEndpoint:
    account_id, region_name = former.arn.split(":")[4], former.arn.split(":")[3]
    return FakeEndpoint(
        account_id=account_id,
        region_name=region_name,
        endpoint_name=former.endpoint_name,
        endpoint_config_name=config,
        production_variants=variants,
        data_capture_config={},
        tags=former.tags,
    )
