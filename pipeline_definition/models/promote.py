"""Moves an approved model package to the production endpoint, and back: serving, promote, rollback.

Reads SageMaker; starts the state machine `Promotion` of infrastructure.yaml, which is what an approval starts too, and
follows it. Every promotion's endpoint configuration remembers the one before it in its tag `former`.

    sd-pipeline promote latest
    sd-pipeline promote latest --beside pretrained --share 0.1
    sd-pipeline rollback
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from params.s3 import unless_missing
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

FORMER_TAG = "former"
MAIN_VARIANT, BESIDE_VARIANT = "production", "beside"
AT_REST = ("InService", "Failed")


@dataclass(frozen=True)
class Served:
    variant: str
    package: str
    """ARN of the model package; empty for a model that was deployed without one."""
    weight: float
    """Share of the requests, relative to the other variants' weights."""
    instances: str
    """`2 x ml.g5.2xlarge`."""


@dataclass(frozen=True)
class Serving:
    endpoint: str
    status: str
    config: str
    former: str
    """The configuration before it, to which `rollback` goes back; empty for the first."""
    variants: tuple[Served, ...]
    reason: str = ""
    """Why the last update failed; empty if it did not."""


class Production:
    def __init__(
        self, target: Target, outputs: Mapping[str, str], say: Callable[[str], None] = print, interval_s: float = 10.0
    ) -> None:
        try:
            self._endpoint, self._machine = outputs["ProductionEndpoint"], outputs["PromotionArn"]
        except KeyError as error:
            raise OperatorError(f"the stack has no output {error}; `sd-pipeline infra deploy` renews it") from None
        self._sagemaker, self._machines = target.client("sagemaker"), target.client("stepfunctions")
        self._say, self._interval_s = say, interval_s

    def serving(self) -> Serving | None:
        """Return what serves; None before the first promotion."""
        about = unless_missing(self._sagemaker.describe_endpoint, EndpointName=self._endpoint)
        if about is None:
            return None
        config = self._config(about["EndpointConfigName"])
        variants = []
        for one in config["ProductionVariants"]:
            model = unless_missing(self._sagemaker.describe_model, ModelName=one["ModelName"]) or {}
            container = model.get("PrimaryContainer") or (model.get("Containers") or [{}])[0]
            package, weight = str(container.get("ModelPackageName") or ""), one.get("InitialVariantWeight", 1.0)
            instances = f"{one.get('InitialInstanceCount', 1)} x {one.get('InstanceType', '?')}"
            variants.append(Served(one["VariantName"], package, weight, instances))
        tags = self._sagemaker.list_tags(ResourceArn=config["EndpointConfigArn"])["Tags"]
        former = next((tag["Value"] for tag in tags if tag["Key"] == FORMER_TAG), "")
        reason = about.get("FailureReason") or ""
        name, status = about["EndpointConfigName"], about["EndpointStatus"]
        return Serving(self._endpoint, status, name, former, tuple(variants), reason)

    def promote(self, package: str, beside: str = "", share: float = 0.1) -> str:
        """Start the promotion of an approved package, another `beside` it with a `share` of requests; return an ARN."""
        for arn in filter(None, (package, beside)):
            status = self._sagemaker.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"]
            if status != "Approved":
                version = arn.rsplit("/", 1)[-1]
                raise OperatorError(f"{arn} is {status}: `sd-pipeline models approve {version}` first")
        detail: dict[str, Any] = {"ModelPackageArn": package}
        if beside:
            if not 0 < share < 1:
                raise OperatorError(f"--share {share:g}: set it between 0 and 1, such as 0.1")
            detail |= {"BesideModelPackageArn": beside, "Weight": 1 - share, "BesideWeight": share}
        return self._start(f"promote-v{package.rsplit('/', 1)[-1]}", detail)

    def rollback(self) -> str:
        """Start the way back to the former configuration; return the ARN of the state machine's execution."""
        serving = self.serving()
        if serving is None:
            raise OperatorError(f"endpoint {self._endpoint} is not there: nothing was promoted yet")
        if serving.status not in AT_REST:
            raise OperatorError(f"endpoint {self._endpoint} is {serving.status}: wait until it is InService")
        if not serving.former:
            raise OperatorError(f"{serving.config} is the first that {self._endpoint} served: there is none before it")
        self._config(serving.former)
        return self._start("rollback", {"EndpointConfigName": serving.former})

    def follow(self, execution: str) -> Serving:
        """Wait for the end of a promotion, reporting the endpoint's status; return what serves then."""
        last_status = ""
        while True:
            about = self._machines.describe_execution(executionArn=execution)
            serving = self.serving()
            status = serving.status if serving else "not there yet"
            if status != last_status:
                self._say(f"{self._endpoint}: {status}")
                last_status = status
            # Of two promotions of one package the second has nothing to do while the first one's endpoint starts.
            starting = about["status"] == "SUCCEEDED" and serving is not None and serving.status not in AT_REST
            if about["status"] != "RUNNING" and not starting:
                break
            time.sleep(self._interval_s)
        if about["status"] == "SUCCEEDED" and serving and serving.status == "Failed":
            raise OperatorError(f"{self._endpoint} is Failed: {serving.reason or 'its log says why'}")
        if about["status"] != "SUCCEEDED" or serving is None:
            reason = f" ({serving.reason})" if serving and serving.reason else ""
            cause = about.get("cause") or f"the state machine's execution {execution} ended as {about['status']}"
            raise OperatorError(f"{about.get('error') or about['status']}: {cause}{reason}")
        return serving

    def _start(self, name: str, detail: Mapping[str, Any]) -> str:
        started = self._machines.start_execution(
            stateMachineArn=self._machine, name=f"{name}-{uuid.uuid4().hex[:8]}", input=json.dumps({"detail": detail})
        )
        return str(started["executionArn"])

    def _config(self, name: str) -> Any:
        config: Any = unless_missing(self._sagemaker.describe_endpoint_config, EndpointConfigName=name)
        if config is None:
            raise OperatorError(f"endpoint configuration {name} was deleted: `sd-pipeline promote` its package again")
        return config
