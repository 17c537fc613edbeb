"""What the parameter set's scaling asks of Application Auto Scaling, checked against the API's own shapes."""

from typing import Any

import pytest

from params.settings import SettingsError, parse_settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.models.autoscaling import Autoscaling, Scaled
from tests.pipeline_definition.fake_aws import FakeTarget, refused

VARIANTS = [{"VariantName": "trained"}, {"VariantName": "generic"}]


class Account:
    """An account with one endpoint, that remembers targets, policies and alarms."""

    def __init__(self, **about: Any) -> None:
        self.about = {"EndpointStatus": "InService", "ProductionVariants": VARIANTS, **about}
        self.targets: dict[str, dict[str, Any]] = {}
        self.policies: dict[tuple[str, str], dict[str, Any]] = {}
        self.alarms: dict[str, dict[str, Any]] = {}

    @property
    def scaling(self) -> Autoscaling:
        answers = {
            "sagemaker": {"describe_endpoint": self._describe_endpoint},
            "application-autoscaling": {
                "register_scalable_target": self._register,
                "deregister_scalable_target": self._deregister,
                "describe_scalable_targets": lambda **_: {"ScalableTargets": list(self.targets.values())},
                "put_scaling_policy": self._put_policy,
                "describe_scaling_policies": self._describe_policies,
            },
            "cloudwatch": {"put_metric_alarm": self._put_alarm, "delete_alarms": self._delete_alarms},
        }
        return Autoscaling(FakeTarget(answers=answers), "drawing")

    def _describe_endpoint(self, **_: Any) -> dict[str, Any]:
        if not self.about["ProductionVariants"]:
            raise refused("DescribeEndpoint", "Could not find endpoint")
        return self.about

    def _register(self, **target: Any) -> dict[str, Any]:
        self.targets[target["ResourceId"]] = target
        return {}

    def _deregister(self, **target: Any) -> dict[str, Any]:
        del self.targets[target["ResourceId"]]
        return {}

    def _put_policy(self, **policy: Any) -> dict[str, Any]:
        self.policies[policy["ResourceId"], policy["PolicyName"]] = policy
        return {"PolicyARN": f"arn:{policy['PolicyName']}"}

    def _describe_policies(self, **query: Any) -> dict[str, Any]:
        found = [{"PolicyName": name} for resource, name in self.policies if resource == query["ResourceId"]]
        return {"ScalingPolicies": found}

    def _put_alarm(self, **alarm: Any) -> dict[str, Any]:
        self.alarms[alarm["AlarmName"]] = alarm
        return {}

    def _delete_alarms(self, **query: Any) -> dict[str, Any]:
        for name in query["AlarmNames"]:
            self.alarms.pop(name, None)
        return {}


def endpoint(text: str) -> Any:
    return parse_settings(f"endpoint: {{{text}}}", "test").endpoint


def test_every_variant_is_scaled_by_its_invocations() -> None:
    account = Account()
    scaled = account.scaling.apply(endpoint("scaling: {min_instances: 1, max_instances: 4, target_load: 30}"))
    assert scaled == [Scaled(name, 1, 4, ("sd-pipeline-load",)) for name in ("trained", "generic")]
    policy = account.policies["endpoint/drawing/variant/trained", "sd-pipeline-load"]
    rule = policy["TargetTrackingScalingPolicyConfiguration"]
    assert (rule["TargetValue"], rule["ScaleInCooldown"], rule["ScaleOutCooldown"]) == (30, 300, 60)
    assert rule["PredefinedMetricSpecification"]["PredefinedMetricType"] == "SageMakerVariantInvocationsPerInstance"
    assert account.alarms == {}


ASLEEP = "asynchronous: true, scaling: {min_instances: 0, max_instances: 2, target_load: 5}"


def test_an_asynchronous_endpoint_goes_down_to_no_host_and_a_request_wakes_it() -> None:
    account = Account(AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://b/a"}})
    account.scaling.apply(endpoint(ASLEEP))
    backlog = account.policies["endpoint/drawing/variant/trained", "sd-pipeline-load"]
    metric = backlog["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert (metric["MetricName"], metric["Dimensions"]) == (
        "ApproximateBacklogSizePerInstance",
        [{"Name": "EndpointName", "Value": "drawing"}],
    )
    assert account.targets["endpoint/drawing/variant/trained"]["MinCapacity"] == 0
    alarm = account.alarms["drawing-wake"]
    assert (alarm["MetricName"], alarm["AlarmActions"]) == ("HasBacklogWithoutCapacity", ["arn:sd-pipeline-wake"])


def test_no_scaling_takes_away_what_there_is() -> None:
    account = Account()
    account.scaling.apply(endpoint("scaling: {max_instances: 4}"))
    assert account.scaling.apply(endpoint("")) == []
    assert (account.targets, account.alarms) == ({}, {})


@pytest.mark.parametrize(
    ("about", "text", "said"),
    [
        ({"EndpointStatus": "Creating"}, "", "is Creating"),
        ({"ProductionVariants": []}, "", "Could not find endpoint"),
        ({}, "asynchronous: true", "is not asynchronous"),
        ({"AsyncInferenceConfig": {"OutputConfig": {}}}, "", "is asynchronous"),
    ],
)
def test_an_endpoint_that_cannot_be_scaled_is_named(about: dict[str, Any], text: str, said: str) -> None:
    with pytest.raises(OperatorError, match=f"endpoint drawing.*{said}"):
        Account(**about).scaling.apply(endpoint(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scaling: {min_instances: 3, max_instances: 2}", "max_instances is below min_instances"),
        ("scaling: {min_instances: 0, max_instances: 2}", "needs asynchronous: true"),
    ],
)
def test_scaling_that_cannot_work_is_refused_with_the_set(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        endpoint(text)
