"""The template's IAM policies against AWS's own list of actions and resources (policy_sentry), and cloudsplaining."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cloudsplaining.scan.policy_document import PolicyDocument
from policy_sentry.querying.actions import get_action_data

from params import layout
from pipeline_definition.infrastructure.template import StackTemplate

PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012"}
ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{}",
    "AWS::ECR::Repository": "arn:aws:ecr:us-east-1:123456789012:repository/{}",
    "AWS::IAM::Role": "arn:aws:iam::123456789012:role/{}",
    "AWS::StepFunctions::StateMachine": "arn:aws:states:us-east-1:123456789012:stateMachine:{}",
}
RESOURCES: dict[str, dict[str, Any]] = StackTemplate().content["Resources"]


def value_of(value: Any) -> Any:
    """Return a template's value with its functions worked out: names for resources, ARNs where they are asked for."""
    if isinstance(value, list):
        return [value_of(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not next(iter(value)).startswith(("Ref", "Fn::")):
        return {key: value_of(item) for key, item in value.items()}
    function, argument = next(iter(value.items()))
    if function == "Ref":
        return PSEUDO.get(argument) or _reference(argument)
    if function == "Fn::GetAtt":
        return _attribute(*argument)
    if function == "Fn::Sub" and isinstance(argument, str):
        return re.sub(r"\$\{([^}]+)\}", lambda match: _substitute(match.group(1)), argument)
    raise AssertionError(f"a policy uses {function}")


def _substitute(name: str) -> str:
    return PSEUDO.get(name) or (_attribute(*name.split(".")) if "." in name else _reference(name))


def _reference(name: str) -> str:
    resource = RESOURCES.get(name, {"Type": "parameter"})
    return _attribute(name, "Arn") if resource["Type"] == "AWS::StepFunctions::StateMachine" else name


def _attribute(name: str, attribute: str) -> str:
    return ARNS[RESOURCES[name]["Type"]].format(name) if attribute == "Arn" else f"{name}-{attribute}"


@functools.cache
def policies() -> dict[str, dict[str, Any]]:
    found = {}
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::IAM::Policy":
            found[name] = value_of(properties["PolicyDocument"])
        for policy in properties.get("Policies", []):
            found[f"{name}.{policy['PolicyName']}"] = value_of(policy["PolicyDocument"])
    return found


def allowed() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each allowed (action, resource, statement)."""
    for document in policies().values():
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                for action in _listed(statement["Action"]):
                    for resource in _listed(statement["Resource"]):
                        yield action, resource, statement


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def arn_forms(action: str) -> set[str]:
    """Return the forms of ARN that an action takes, as patterns; `*` when it knows none."""
    service, name = action.split(":")
    data = get_action_data(service, name)
    assert data, f"AWS has no action {action}"
    return {item["resource_arn_format"] for item in data[service]}


def _matches(form: str, arn: str) -> bool:
    pattern = re.sub(r"\\\$\\\{\w+\\\}", r"[^:]*", re.escape(form)).replace("arn:[^:]*:", "arn:aws:")
    return re.fullmatch(pattern, arn) is not None


def test_there_is_a_policy_for_every_role() -> None:
    assert set(policies()) == {
        "DataPolicy",
        "NetworkPolicy",
        "PipelinePolicy",
        "PromotionRole.promote",
        "EventsRole.start-promotion",
    }


def test_no_action_is_a_wildcard() -> None:
    assert [action for action, _, _ in allowed() if "*" in action] == []


def test_a_star_stands_only_where_aws_knows_no_resource() -> None:
    stars = {action for action, resource, _ in allowed() if resource == "*"}
    assert {action for action in stars if arn_forms(action) != {"*"}} == set()


def test_every_action_has_a_resource_that_it_takes() -> None:
    fitting: dict[str, bool] = {}
    for action, resource, statement in allowed():
        key = f"{statement.get('Sid')} {action}"
        fitting[key] = fitting.get(key, False) or any(_matches(form, resource) for form in arn_forms(action))
    assert [key for key, fits in fitting.items() if not fits] == []


def test_every_resource_fits_some_action_of_its_statement() -> None:
    useless = []
    for document in policies().values():
        for statement in document["Statement"]:
            forms = {form for action in _listed(statement["Action"]) for form in arn_forms(action)}
            resources = _listed(statement["Resource"])
            useless += [arn for arn in resources if arn != "*" and not any(_matches(form, arn) for form in forms)]
    assert useless == []


def test_pass_role_is_limited_to_the_execution_role_and_to_sagemaker() -> None:
    passing = [(resource, statement) for action, resource, statement in allowed() if action == "iam:PassRole"]
    assert len(passing) == 2
    for resource, statement in passing:
        assert resource == ARNS["AWS::IAM::Role"].format("ExecutionRole")
        assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


@pytest.mark.parametrize("name", sorted(policies()))
def test_cloudsplaining_finds_no_way_to_more_rights_and_no_open_resource(name: str) -> None:
    document = PolicyDocument(policies()[name])
    assert document.allows_privilege_escalation == []
    assert document.permissions_management_without_constraints == []
    assert document.allows_data_exfiltration_actions == []
    assert document.service_wildcard == []
    # PutMetricData and GetAuthorizationToken know no resource; the former is held to its namespaces.
    assert set(document.infrastructure_modification) <= {"cloudwatch:PutMetricData"}


@pytest.mark.parametrize("name", ["ExecutionRole", "PromotionRole", "EventsRole"])
def test_a_role_trusts_one_service_on_behalf_of_this_account_only(name: str) -> None:
    statements = value_of(RESOURCES[name]["Properties"]["AssumeRolePolicyDocument"])["Statement"]
    assert len(statements) == 1
    assert list(statements[0]["Principal"]) == ["Service"]
    assert statements[0]["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}


def test_jobs_write_where_the_pipeline_writes_and_nowhere_else() -> None:
    written = {resource for action, resource, _ in allowed() if action == "s3:PutObject"}
    names = (
        layout.SHARDS,
        layout.LATENTS,
        layout.REFERENCE,
        layout.CHECKPOINTS,
        layout.MODEL,
        layout.EVALUATION,
        "tuning",
        "samples",
    )
    assert written == {f"arn:aws:s3:::Bucket/{name}/*" for name in names}


def test_the_pipeline_cannot_touch_the_production_endpoint() -> None:
    denied = [s for s in policies()["PipelinePolicy"]["Statement"] if s["Effect"] == "Deny"]
    assert denied[0]["Resource"].endswith(":endpoint/ProductionEndpoint")
    assert set(denied[0]["Action"]) == {"sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint"}
