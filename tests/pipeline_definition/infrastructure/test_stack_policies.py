"""The template's IAM policies against AWS's own list of actions and resources (policy_sentry), and cloudsplaining."""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cloudsplaining.scan.policy_document import PolicyDocument
from policy_sentry.querying.actions import get_action_data

from params import layout
from pipeline_definition.infrastructure.template import StackTemplate
from tests.pipeline_definition.infrastructure.resolved import Resolved

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
COMPANY = {
    "VpcId": "vpc-0a",
    "SubnetIds": "subnet-0a,subnet-0b",
    "SecurityGroupIds": "sg-0a",
    "KmsKeyArn": KEY,
    "ReadBucketArns": "arn:aws:s3:::pictures,arn:aws:s3:::captions",
    "ReadKeyArns": "arn:aws:kms:eu-west-1:210987654321:key/theirs",
}
"""A company's account as it is; the role is the stack's own, so that its policies exist."""
SETTINGS = {"default": {}, "company": COMPANY}
RESOURCES: dict[str, dict[str, Any]] = StackTemplate().content["Resources"]
EXECUTION_ROLE = "arn:aws:iam::123456789012:role/ExecutionRole"
BUCKET = "arn:aws:s3:::sd-pipeline-123456789012-us-east-1"


@functools.cache
def resolved(setting: str) -> Resolved:
    return Resolved(StackTemplate(), SETTINGS[setting])


@pytest.fixture(params=sorted(SETTINGS))
def setting(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@functools.cache
def policies(setting: str = "default") -> dict[str, dict[str, Any]]:
    found = {}
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if "Condition" in resource and not resolved(setting).holds(resource["Condition"]):
            continue
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            found[name] = resolved(setting).properties(name)["PolicyDocument"]
        for number, policy in enumerate(properties.get("Policies", [])):
            document = resolved(setting).properties(name)["Policies"][number]["PolicyDocument"]
            found[f"{name}.{policy['PolicyName']}"] = document
    return found


def allowed(setting: str = "default") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each allowed (action, resource, statement)."""
    for document in policies(setting).values():
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
    assert set(policies("company")) == {
        "DataAccess",
        "ReadAccess",
        "ReadKeysAccess",
        "KeyAccess",
        "NetworkAccess",
        "PipelineAccess",
        "PromotionRole.promote",
        "EventsRole.start-promotion",
    }


def test_no_action_is_a_wildcard(setting: str) -> None:
    assert [action for action, _, _ in allowed(setting) if "*" in action] == []


def test_a_star_stands_only_where_aws_knows_no_resource(setting: str) -> None:
    stars = {action for action, resource, _ in allowed(setting) if resource == "*"}
    assert {action for action in stars if arn_forms(action) != {"*"}} == set()


def test_every_action_has_a_resource_that_it_takes(setting: str) -> None:
    fitting: dict[str, bool] = {}
    for action, resource, statement in allowed(setting):
        key = f"{statement.get('Sid')} {action}"
        fitting[key] = fitting.get(key, False) or any(_matches(form, resource) for form in arn_forms(action))
    assert [key for key, fits in fitting.items() if not fits] == []


def test_every_resource_fits_some_action_of_its_statement(setting: str) -> None:
    useless = []
    for document in policies(setting).values():
        for statement in document["Statement"]:
            forms = {form for action in _listed(statement["Action"]) for form in arn_forms(action)}
            resources = _listed(statement["Resource"])
            useless += [arn for arn in resources if arn != "*" and not any(_matches(form, arn) for form in forms)]
    assert useless == []


def test_pass_role_is_limited_to_the_execution_role_and_to_sagemaker() -> None:
    passing = [(resource, statement) for action, resource, statement in allowed() if action == "iam:PassRole"]
    assert len(passing) == 2
    for resource, statement in passing:
        assert resource == EXECUTION_ROLE
        assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


@pytest.mark.parametrize("name", sorted(policies("company")))
def test_cloudsplaining_finds_no_way_to_more_rights_and_no_open_resource(name: str, setting: str) -> None:
    if name not in policies(setting):
        return
    document = PolicyDocument(policies(setting)[name])
    assert document.allows_privilege_escalation == []
    assert document.permissions_management_without_constraints == []
    assert document.allows_data_exfiltration_actions == []
    assert document.service_wildcard == []
    # PutMetricData and GetAuthorizationToken know no resource; the former is held to its namespaces.
    assert set(document.infrastructure_modification) <= {"cloudwatch:PutMetricData"}


@pytest.mark.parametrize("name", ["ExecutionRole", "PromotionRole", "EventsRole"])
def test_a_role_trusts_one_service_on_behalf_of_this_account_only(name: str) -> None:
    statements = resolved("default").properties(name)["AssumeRolePolicyDocument"]["Statement"]
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
    assert written == {f"{BUCKET}/{name}/*" for name in names}


def test_the_pipeline_cannot_touch_the_production_endpoint() -> None:
    denied = [s for s in policies()["PipelineAccess"]["Statement"] if s["Effect"] == "Deny"]
    assert denied[0]["Resource"].endswith(":endpoint/sd-production")
    assert set(denied[0]["Action"]) == {"sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint"}


def test_a_companys_buckets_and_keys_are_read_and_nothing_else_of_them_is_allowed() -> None:
    others = {}
    for action, resource, statement in allowed("company"):
        if resource.startswith(("arn:aws:s3:::pictures", "arn:aws:s3:::captions", "arn:aws:kms")):
            others.setdefault(statement["Sid"], set()).update({(action, resource)})
    actions = {sid: {action for action, _ in found} for sid, found in others.items()}
    assert actions == {
        "ReadOtherBuckets": {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"},
        "DecryptOtherBuckets": {"kms:Decrypt"},
        "UseKey": {"kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"},
        "EncryptDisks": {"kms:CreateGrant"},
    }
    objects = {resource for action, resource in others["ReadOtherBuckets"] if action == "s3:GetObject"}
    assert {"arn:aws:s3:::pictures/*", "arn:aws:s3:::captions/*"} <= objects
    assert {resource for _, resource in others["UseKey"]} == {KEY}
    assert not any(action.startswith("kms:") for action, _, _ in allowed())


def test_interfaces_are_made_in_the_companys_network_and_in_no_other() -> None:
    for _, resource, statement in allowed("company"):
        if statement.get("Sid") in ("AttachToNetwork", "DetachFromNetwork"):
            assert resource.startswith("arn:aws:ec2:us-east-1:123456789012:")
            (network,) = statement["Condition"]["ArnEquals"].values()
            assert network == "arn:aws:ec2:us-east-1:123456789012:vpc/vpc-0a"


def test_a_role_of_ones_own_is_left_alone_and_passes_itself() -> None:
    role = "arn:aws:iam::123456789012:role/company"
    own = Resolved(StackTemplate(), COMPANY | {"ExecutionRoleArn": role})
    for name in ("DataAccess", "ReadAccess", "ReadKeysAccess", "KeyAccess", "NetworkAccess", "PipelineAccess"):
        assert "Roles" not in own.properties(name)
        assert resolved("company").properties(name)["Roles"] == ["ExecutionRole"]
    (passing,) = [
        s for s in own.properties("PipelineAccess")["PolicyDocument"]["Statement"] if s["Sid"] == "PassItself"
    ]
    assert passing["Resource"] == role
    outputs = StackTemplate().content["Outputs"]["ExecutionPolicies"]["Value"]
    assert len(own.value(outputs).split(",")) == 6
    assert len(resolved("default").value(outputs).split(",")) == 3


@pytest.mark.parametrize("name", ["DataAccess", "NetworkAccess", "PipelineAccess"])
def test_a_policy_is_as_long_as_iam_takes_it(name: str, setting: str) -> None:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: white space does not count
    assert len(re.sub(r"\s", "", json.dumps(policies(setting)[name]))) < 6_144
