"""Preflight judges as the service will: what AWS's own shapes, roles, zones and clocks refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from params.settings import Settings, load_settings
from pipeline_definition.checks.account import permission_findings
from pipeline_definition.checks.capacity import Capacity
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.checks.scale import scale_findings
from pipeline_definition.cli import app
from pipeline_definition.cost.host_hours import priced
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.infrastructure.stack import fill
from pipeline_definition.infrastructure.template import StackTemplate
from pipeline_definition.jobs.planned import Values, planned_jobs
from pipeline_definition.session import Target
from tests.params.test_parameter_sets import STACK
from tests.pipeline_definition.definitions import PARAMETER_SETS, definition_of
from tests.pipeline_definition.fake_aws import FakeTarget, refused


@pytest.fixture(scope="module")
def settings() -> Settings:
    return fill(load_settings(Path("params/octank_100gb.yaml")), STACK)


@pytest.fixture(scope="module")
def definition(settings: Settings) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(build_definition(priced(settings)))
    return content


def found(settings: Settings, definition: dict[str, Any], **changes: str) -> dict[str, Finding]:
    return {finding.parameter: finding for finding in preflight(settings, definition, changes)}


# Shapes.


@pytest.mark.parametrize("name", ["EncodeInstanceCount", "DownloadInstanceCount", "EvaluateInstanceCount"])
def test_a_processing_job_has_at_most_100_hosts(settings: Settings, definition: dict[str, Any], name: str) -> None:
    assert name not in found(settings, definition, **{name: "100"})
    finding = found(settings, definition, **{name: "101"})[name]
    assert finding.blocking and "CreateProcessingJob" in finding.problem and "at most 100" in finding.fix


def test_a_text_that_a_request_does_not_take_is_named_with_its_length(
    settings: Settings, definition: dict[str, Any]
) -> None:
    table = f"s3://{settings.account.bucket}/{'a' * 300}/"
    finding = found(settings, definition, UrlTable=table)["UrlTable"]
    assert f"has {len(table)} characters" in finding.problem and "at most 256" in finding.problem


def test_a_limit_that_only_the_set_holds_is_named_by_its_place(settings: Settings) -> None:
    job = settings.encode.job.model_copy(update={"volume_size_gb": 20_000, "max_runtime_s": 777_601})
    large = settings.model_copy(update={"encode": settings.encode.model_copy(update={"job": job})})
    names = found(large, json.loads(build_definition(large)))
    assert "at most 16384" in names["Encode.ProcessingResources.ClusterConfig.VolumeSizeInGB"].fix
    assert "at most 777600" in names["Encode.StoppingCondition.MaxRuntimeInSeconds"].fix


@pytest.mark.parametrize("size", ["0", "1200", "2400", "19200", "108000", "240000"])
def test_every_size_of_a_file_system_is_accepted(size: str) -> None:
    assert StackTemplate().problem({"FileSystemGiB": size}) == ""


@pytest.mark.parametrize("size", ["108001", "1000", "3600", "-2400", "1200.5", "much", ""])
def test_any_other_size_is_refused_with_the_rule_in_words(size: str) -> None:
    problem = StackTemplate().problem({"FileSystemGiB": size})
    assert ("FileSystemGiB" in problem and "1200, or any multiple of 2400" in problem) or "not a number" in problem


# Roles.


@pytest.mark.parametrize("name", ["UrlTable", "PretrainedModel", "Evaluator", "EvaluationCaptions"])
def test_an_address_in_another_bucket_is_told_of_before_an_account_is_asked(
    settings: Settings, definition: dict[str, Any], name: str
) -> None:
    finding = found(settings, definition, **{name: "s3://another-bucket/data/x.tsv"})[name]
    assert not finding.blocking and "another-bucket" in finding.problem and "s3:GetObject" in finding.fix


def permissions(
    settings: Settings, definition: dict[str, Any], denied: tuple[str, ...], policy: dict[str, Any] | None
) -> list[Finding]:
    def simulate(PolicySourceArn: str, ActionNames: list[str], ResourceArns: list[str]) -> dict[str, Any]:  # noqa: N803
        assert PolicySourceArn == settings.account.role_arn and "another-bucket" in ResourceArns[0]
        decision = "implicitDeny" if ActionNames[0] in denied else "allowed"
        return {"EvaluationResults": [{"EvalActionName": ActionNames[0], "EvalDecision": decision}]}

    def bucket_policy(Bucket: str) -> dict[str, Any]:  # noqa: N803
        if policy is None:
            raise refused("GetBucketPolicy", "none", "NoSuchBucketPolicy")
        return {"Policy": json.dumps(policy)}

    answers = {"iam": {"simulate_principal_policy": simulate}, "s3": {"get_bucket_policy": bucket_policy}}
    values = Values(definition, {"UrlTable": "s3://another-bucket/meta/"})
    return list(permission_findings(settings, values, FakeTarget(answers=answers)))


def test_what_the_role_may_read_is_no_finding(settings: Settings, definition: dict[str, Any]) -> None:
    assert permissions(settings, definition, (), None) == []


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:ListBucket"])
def test_what_the_role_may_not_read_stands_in_the_way(
    settings: Settings, definition: dict[str, Any], action: str
) -> None:
    (finding,) = permissions(settings, definition, (action,), None)
    assert finding.parameter == "UrlTable" and finding.blocking and action in finding.problem
    # The bucket's own policy may let the role in, which IAM does not simulate.
    allows = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "s3:*"}
    (finding,) = permissions(settings, definition, (action,), {"Statement": [allows]})
    assert not finding.blocking


# Zones.


def zones(settings: Settings, definition: dict[str, Any], offered: dict[str, list[str]]) -> list[Finding]:
    class Ec2Target(FakeTarget):
        def client(self, service: str) -> Any:
            client = super().client(service)

            class Pages:
                def paginate(self, **request: Any) -> list[dict[str, Any]]:
                    asked = set(request["Filters"][0]["Values"])
                    items = [
                        {"InstanceType": name, "Location": zone} for name in asked for zone in offered.get(name, ())
                    ]
                    return [{"InstanceTypeOfferings": items}]

            client.get_paginator = lambda name: Pages()
            return client

    subnets = {"Subnets": [{"SubnetId": "subnet-1", "AvailabilityZone": "us-east-1a"}]}
    target = Ec2Target(answers={"ec2": {"describe_subnets": lambda Filters: subnets}})  # noqa: N803
    jobs = planned_jobs(definition, Values(definition, {}))
    return list(Capacity(settings, target).zone_findings(jobs))


def test_a_type_that_the_subnets_zone_does_not_have_is_named_with_the_zones_that_do(
    settings: Settings, definition: dict[str, Any]
) -> None:
    everywhere = {
        name: ["us-east-1a", "us-east-1b"] for name in ("p4d.24xlarge", "g5.12xlarge", "c6i.4xlarge", "g5.2xlarge")
    }
    assert zones(settings, definition, everywhere) == []
    found = zones(settings, definition, {**everywhere, "p4d.24xlarge": ["us-east-1d"]})
    assert {finding.parameter for finding in found} == {"TuneInstanceType", "TrainingInstanceType"}
    assert all("us-east-1a" in finding.problem and "us-east-1d" in finding.fix for finding in found)
    # A type that EC2 does not know is SageMaker's to judge.
    assert zones(settings, definition, {}) == []


# Clocks.


@pytest.mark.parametrize("name", [name for name in PARAMETER_SETS if name != "local"])
def test_every_delivered_set_fits_at_its_size(name: str) -> None:
    settings, content = load_settings(Path("params") / f"{name}.yaml"), definition_of(name)
    assert list(scale_findings(settings, content, {}, planned_jobs(content, Values(content, {})))) == []


def test_a_job_that_the_clock_would_stop_is_refused_with_a_limit_that_does(
    settings: Settings, definition: dict[str, Any]
) -> None:
    job = settings.evaluate.job.model_copy(update={"max_runtime_s": 3600})
    short = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"job": job})})
    finding = found(short, json.loads(build_definition(priced(short))))["evaluate.job.max_runtime_s"]
    assert finding.blocking and "stopped after 1.0 h" in finding.problem
    wanted_s = int(finding.fix.split()[3].rstrip(","))
    job = job.model_copy(update={"max_runtime_s": wanted_s})
    mended = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"job": job})})
    assert "evaluate.job.max_runtime_s" not in found(mended, json.loads(build_definition(priced(mended))))


def test_a_training_that_goes_on_from_its_checkpoint_is_told_of_and_not_refused(
    settings: Settings, definition: dict[str, Any]
) -> None:
    finding = found(settings, definition, TrainingSamples=str(2048 * 1_000_000))["train.job.max_runtime_s"]
    assert not finding.blocking and "Train is forecast" in finding.problem


# What needs no account comes first.


def test_a_parameter_that_is_unknown_is_named_without_credentials_and_without_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Target, "client", lambda self, service: pytest.fail(f"{service} was asked"))
    for more in ([], ["--stack", "sd-pipeline"]):
        result = CliRunner().invoke(app, ["start", "--dry-run", "--set", "NoSuchParameter=1", *more])
        assert result.exit_code == 2 and "unknown parameter NoSuchParameter" in result.output, result.output


def test_what_the_parameter_set_alone_tells_is_told_before_the_account_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Target, "client", lambda self, service: pytest.fail(f"{service} was asked"))
    result = CliRunner().invoke(app, ["start", "--set", "EncodeInstanceCount=120"])
    assert result.exit_code == 2 and "EncodeInstanceCount: 120 is above" in result.output, result.output
