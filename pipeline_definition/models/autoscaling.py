"""Autoscaling of an endpoint's variants: applied after it is in service, since no pipeline step can do it.

Reads endpoint.scaling of the parameter set and the endpoint's variants; writes scalable targets and policies of
Application Auto Scaling, and for an endpoint that goes down to no host the alarm that wakes it.

    sd-pipeline scale --params params/octank_100gb.yaml

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-add-code-define.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-autoscale.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from params.stages import EndpointStep, Scaling
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

DIMENSION: Final = "sagemaker:variant:DesiredInstanceCount"
NAMESPACE: Final[Mapping[str, Any]] = {"ServiceNamespace": "sagemaker", "ScalableDimension": DIMENSION}
LOAD_POLICY, WAKE_POLICY = "sd-pipeline-load", "sd-pipeline-wake"
# A minute is the metrics' resolution; the second one rules out a blip.
ALARM_PERIOD_S: Final = 60
ALARM_PERIODS: Final = 2


@dataclass(frozen=True)
class Scaled:
    variant: str
    min_instances: int
    max_instances: int
    policies: tuple[str, ...]


class Autoscaling:
    def __init__(self, target: Target, endpoint: str) -> None:
        self._endpoint, self._alarm = endpoint, f"{endpoint}-wake"
        self._prefix = f"endpoint/{endpoint}/variant/"
        self._metrics = {"Namespace": "AWS/SageMaker", "Dimensions": [{"Name": "EndpointName", "Value": endpoint}]}
        self._sagemaker = target.client("sagemaker")
        self._scaling = target.client("application-autoscaling")
        self._alarms = target.client("cloudwatch")

    def apply(self, settings: EndpointStep) -> list[Scaled]:
        """Apply the parameter set's scaling, or none, to the endpoint's variants; return the result."""
        is_scaled = {scaled.variant for scaled in self.described()}
        for variant in self._variants(settings.asynchronous):
            if settings.scaling.max_instances:
                self._register(variant, settings)
            elif variant in is_scaled:
                # With the target go its policies and alarms; the running hosts stay.
                self._scaling.deregister_scalable_target(**NAMESPACE, ResourceId=self._prefix + variant)
                self._alarms.delete_alarms(AlarmNames=[self._alarm])
        return self.described()

    def described(self) -> list[Scaled]:
        """Return the scaling of the endpoint's variants as it is now."""
        scaled = []
        for target in self._scaling.describe_scalable_targets(**NAMESPACE)["ScalableTargets"]:
            name = target["ResourceId"]
            if name.startswith(self._prefix):
                policies = self._scaling.describe_scaling_policies(**NAMESPACE, ResourceId=name)["ScalingPolicies"]
                names, variant = tuple(sorted(one["PolicyName"] for one in policies)), name.removeprefix(self._prefix)
                scaled.append(Scaled(variant, target["MinCapacity"], target["MaxCapacity"], names))
        return scaled

    def _variants(self, asynchronous: bool) -> list[str]:
        try:
            about = self._sagemaker.describe_endpoint(EndpointName=self._endpoint)
        except ClientError as error:
            raise OperatorError(f"endpoint {self._endpoint}: {error.response['Error']['Message']}") from None
        if (status := about["EndpointStatus"]) != "InService":
            raise OperatorError(f"endpoint {self._endpoint} is {status}; it can be scaled once it is InService")
        if ("AsyncInferenceConfig" in about) != asynchronous:
            kind = "asynchronous" if "AsyncInferenceConfig" in about else "not asynchronous"
            raise OperatorError(f"endpoint {self._endpoint} is {kind}, endpoint.asynchronous says otherwise")
        return [variant["VariantName"] for variant in about["ProductionVariants"]]

    def _register(self, variant: str, settings: EndpointStep) -> None:
        scaling, resource = settings.scaling, {**NAMESPACE, "ResourceId": self._prefix + variant}
        metric: dict[str, Any] = {
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        }
        if settings.asynchronous:
            backlog = {"MetricName": "ApproximateBacklogSizePerInstance", "Statistic": "Average", **self._metrics}
            metric = {"CustomizedMetricSpecification": backlog}
        limits = {"MinCapacity": scaling.min_instances, "MaxCapacity": scaling.max_instances}
        self._scaling.register_scalable_target(**resource, **limits)
        self._scaling.put_scaling_policy(
            **resource,
            PolicyName=LOAD_POLICY,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": scaling.target_load,
                "ScaleOutCooldown": scaling.scale_out_cooldown_s,
                "ScaleInCooldown": scaling.scale_in_cooldown_s,
                **metric,
            },
        )
        if scaling.min_instances == 0:
            self._wake_when_asked(resource, scaling)

    def _wake_when_asked(self, resource: Mapping[str, Any], scaling: Scaling) -> None:
        """Add a host when requests wait without one: the backlog per instance is then undefined."""
        policy = self._scaling.put_scaling_policy(
            **resource,
            PolicyName=WAKE_POLICY,
            PolicyType="StepScaling",
            StepScalingPolicyConfiguration={
                "AdjustmentType": "ChangeInCapacity",
                "MetricAggregationType": "Average",
                "Cooldown": scaling.scale_out_cooldown_s,
                "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
            },
        )
        self._alarms.put_metric_alarm(
            AlarmName=self._alarm,
            AlarmDescription="Requests wait for an asynchronous endpoint without a host",
            **self._metrics,
            MetricName="HasBacklogWithoutCapacity",
            Statistic="Average",
            Period=ALARM_PERIOD_S,
            EvaluationPeriods=ALARM_PERIODS,
            DatapointsToAlarm=ALARM_PERIODS,
            Threshold=1.0,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="missing",
            AlarmActions=[policy["PolicyARN"]],
        )
