"""The stack: what the template promises, and deploy, status, destroy and fill against moto.

moto knows neither FSx file systems nor budgets in CloudFormation, and forgets the outputs of a stack that a change
set created: the template itself is checked whole by cfn-lint, and change sets run on a template of one bucket.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto import mock_aws

from params import layout
from params.settings import Settings, SettingsError
from pipeline_definition.errors import OperatorError
from pipeline_definition.infrastructure.stack import Infrastructure, fill, followed
from pipeline_definition.infrastructure.template import TEMPLATE, StackTemplate
from pipeline_definition.infrastructure.zone import zone_for
from pipeline_definition.session import Target
from tests.pipeline_definition.fake_aws import FakeTarget
from tests.pipeline_definition.infrastructure.resolved import Resolved

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

ONE_BUCKET = """
Parameters:
  Name: {Type: String, Default: one-bucket, AllowedPattern: "^[a-z-]+$"}
  Days: {Type: Number, Default: 7, MinValue: 1}
Resources:
  Bucket:
    Type: AWS::S3::Bucket
    Properties: {BucketName: !Ref Name, VersioningConfiguration: {Status: Enabled}}
  Word:
    Type: AWS::SSM::Parameter
    Properties: {Name: !Ref Name, Type: String, Value: !Ref Days}
Outputs:
  BucketName: {Value: !Ref Bucket}
  ModelPackageGroupName: {Value: models}
  ProductionEndpoint: {Value: production}
"""


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield Target("us-east-1")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def deployed(target: Target, said: list[str]) -> Infrastructure:
    """The whole template, less what moto does not know, created by CreateStack."""
    target.client("cloudformation").create_stack(
        StackName="sd-pipeline",
        TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": "FileSystemGiB", "ParameterValue": "0"}],
        Capabilities=["CAPABILITY_IAM"],
    )
    return Infrastructure(target, say=said.append, interval_s=0)


@pytest.fixture
def one_bucket(target: Target, said: list[str], tmp_path: Path) -> Infrastructure:
    template = tmp_path / "one_bucket.yaml"
    template.write_text(ONE_BUCKET, encoding="utf-8")
    return Infrastructure(target, "one-bucket", said.append, interval_s=0, template=template)


# The template.


def test_cfn_lint_finds_nothing_not_even_information() -> None:
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    command = [str(cfn_lint), "--template", str(TEMPLATE), "--include-checks", "I", "W", "E", "I3510"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_template_suppresses_no_rule() -> None:
    assert "cfn-lint" not in TEMPLATE.read_text(encoding="utf-8")


def test_the_template_fits_into_a_request_without_a_bucket() -> None:
    assert len(TEMPLATE.read_bytes()) <= 51_200


def test_every_security_group_admits_its_own_members_only() -> None:
    rules = _resources("AWS::EC2::SecurityGroupIngress")
    assert rules
    for rule in rules.values():
        assert rule["SourceSecurityGroupId"] == rule["GroupId"]
        assert not any(key.startswith("Cidr") for key in rule)
    for group in _resources("AWS::EC2::SecurityGroup").values():
        assert "SecurityGroupIngress" not in group


def test_the_file_system_is_open_on_lustres_ports_alone() -> None:
    rules = [
        rule
        for rule in _resources("AWS::EC2::SecurityGroupIngress").values()
        if rule["GroupId"] == "LustreGroup-GroupId"
    ]
    assert sorted((rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in rules) == [
        ("tcp", 988, 988),
        ("tcp", 1018, 1023),
    ]
    assert _resources("AWS::FSx::FileSystem")["FileSystem"]["SecurityGroupIds"] == ["LustreGroup-GroupId"]


def test_the_latents_prefix_is_what_the_file_system_shows() -> None:
    association = _resources("AWS::FSx::DataRepositoryAssociation")["LatentsAssociation"]
    assert association["DataRepositoryPath"] == f"s3://Bucket/{layout.LATENTS}/"
    assert association["S3"] == {"AutoImportPolicy": {"Events": ["NEW", "CHANGED", "DELETED"]}}
    path = StackTemplate().content["Outputs"]["FileSystemPath"]["Value"]["Fn::Sub"]
    assert path == f"/${{FileSystem.LustreMountName}}{association['FileSystemPath']}"


def test_the_bucket_is_encrypted_versioned_private_and_tls_only() -> None:
    bucket = _resources("AWS::S3::Bucket")["Bucket"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    statement = _resources("AWS::S3::BucketPolicy")["BucketPolicy"]["PolicyDocument"]["Statement"][0]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert {rule.get("Prefix") for rule in bucket["LifecycleConfiguration"]["Rules"]} >= {"checkpoints/", "tuning/"}


# Deploy, status, destroy.


def test_deploy_says_what_it_adds_and_follows_the_stack_to_its_end(one_bucket: Infrastructure, said: list[str]) -> None:
    plan = one_bucket.plan({})
    assert plan is not None
    assert plan.changes == ("Add Bucket (AWS::S3::Bucket)", "Add Word (AWS::SSM::Parameter)")
    one_bucket.apply(plan)
    assert said[-1].endswith("CREATE_COMPLETE       one-bucket")


def test_deploying_the_same_again_changes_nothing(one_bucket: Infrastructure, target: Target, said: list[str]) -> None:
    _create(target, ONE_BUCKET, "one-bucket")
    assert one_bucket.deploy({})["BucketName"] == "one-bucket"
    assert said == ["stack one-bucket is up to date"]


def test_an_update_changes_the_parameter_and_keeps_the_others(one_bucket: Infrastructure, target: Target) -> None:
    _create(target, ONE_BUCKET, "one-bucket", Name="kept-name")
    one_bucket.deploy({"Days": "9"})
    assert target.client("ssm").get_parameter(Name="kept-name")["Parameter"]["Value"] == "9"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Dais": "1"}, "unknown parameter Dais; did you mean Days?"),
        ({"Days": "0"}, "Days: '0' is not a number of at least 1"),
        ({"Days": "soon"}, "Days: 'soon' is not a number of at least 1"),
        ({"Name": "UPPER"}, "Name: 'UPPER' does not match"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_is_sent(
    one_bucket: Infrastructure, target: Target, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(OperatorError, match=message.replace("?", r"\?")):
        one_bucket.deploy(changes)
    assert target.client("cloudformation").list_stacks()["StackSummaries"] == []


def test_a_size_that_lustre_does_not_have_is_refused(target: Target) -> None:
    with pytest.raises(
        OperatorError, match=r"FileSystemGiB: FSx for Lustre has no size '1000': .* any multiple of 2400"
    ):
        Infrastructure(target, interval_s=0).deploy({"FileSystemGiB": "1000"})


def test_a_failed_stack_names_the_resource_that_failed_first_and_why() -> None:
    said: list[str] = []
    client = RolledBack()
    stack_id = "arn:aws:cloudformation:us-east-1:1:stack/sd-pipeline/id"
    with pytest.raises(OperatorError) as caught, followed(client, stack_id, said.append, 0):
        client.happened = 4
    assert str(caught.value) == (
        "stack sd-pipeline ended as ROLLBACK_COMPLETE: "
        "FileSystem (AWS::FSx::FileSystem): not enough capacity in us-east-1a"
    )
    assert "CREATE_FAILED" in said[0]
    assert len(said) == 3


def test_status_names_what_costs_money_and_not_what_is_free(deployed: Infrastructure, target: Target) -> None:
    _run_endpoint(target, "sd-production")
    status = deployed.status()
    assert status.status == "CREATE_COMPLETE"
    assert any(line.startswith("StsEndpoint") for line in status.costs)
    assert any(line.startswith("endpoint sd-production") for line in status.costs)
    assert not any("S3Endpoint" in line or "Subnet" in line for line in status.costs)


def test_the_status_of_a_stack_that_is_not_there_is_absent(target: Target) -> None:
    assert Infrastructure(target, "nothing").status().status == "ABSENT"


def test_destroy_refuses_while_the_bucket_holds_anything(one_bucket: Infrastructure, target: Target) -> None:
    _create(target, ONE_BUCKET, "one-bucket")
    s3 = target.client("s3")
    s3.put_bucket_versioning(Bucket="one-bucket", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="one-bucket", Key="model.tar.gz", Body=b"weights")
    s3.delete_object(Bucket="one-bucket", Key="model.tar.gz")  # the former version is still there
    with pytest.raises(OperatorError, match="objects in s3://one-bucket; --empty"):
        one_bucket.destroy()
    assert one_bucket.status().status == "CREATE_COMPLETE"


def test_destroy_refuses_while_models_are_registered(one_bucket: Infrastructure, target: Target) -> None:
    _create(target, ONE_BUCKET, "one-bucket")
    _register(target, "models")
    with pytest.raises(OperatorError, match=r"1 model package\(s\) in models; --empty"):
        one_bucket.destroy()


def test_destroy_with_empty_deletes_every_version_every_model_and_the_stack(
    one_bucket: Infrastructure, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _create(target, ONE_BUCKET, "one-bucket")
    s3 = target.client("s3")
    s3.put_bucket_versioning(Bucket="one-bucket", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two"):
        s3.put_object(Bucket="one-bucket", Key="model.tar.gz", Body=body)
    s3.create_multipart_upload(Bucket="one-bucket", Key="broken.tar.gz")
    arn = _register(target, "models")
    deleted = _catch_deleted_packages(monkeypatch)
    one_bucket.destroy(empty=True)
    assert s3.list_buckets()["Buckets"] == []
    assert deleted == [arn]
    assert one_bucket.status().status == "ABSENT"
    assert said[-1].endswith("DELETE_COMPLETE       one-bucket")


def test_destroy_names_the_endpoint_that_goes_on_costing(
    one_bucket: Infrastructure, target: Target, said: list[str]
) -> None:
    _create(target, ONE_BUCKET, "one-bucket")
    _run_endpoint(target, "production")
    _run_endpoint(target, "somebody-elses")
    one_bucket.destroy()
    costing = [line for line in said if line.startswith("goes on costing")]
    assert len(costing) == 1
    assert "delete-endpoint --endpoint-name production" in costing[0]


def test_what_is_left_of_a_failed_creation_does_not_stand_in_the_way(
    one_bucket: Infrastructure, target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _create(target, ONE_BUCKET, "one-bucket")
    describe = Infrastructure._describe

    def failed(self: Infrastructure) -> dict[str, Any] | None:
        stack = describe(self)
        return stack and {**stack, "StackStatus": "ROLLBACK_COMPLETE"}

    monkeypatch.setattr(Infrastructure, "_describe", failed)
    plan = one_bucket.plan({})
    assert plan is not None
    assert said[0] == "deleting what is left of the failed creation of one-bucket"
    assert plan.changes[0] == "Add Bucket (AWS::S3::Bucket)"


# A company's account as it is.

COMPANY = {
    "VpcId": "vpc-0a",
    "SubnetIds": "subnet-0a,subnet-0b",
    "SecurityGroupIds": "sg-0a,sg-0b",
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/company",
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1234abcd",
    "ReadBucketArns": "arn:aws:s3:::pictures",
}


def made(parameters: dict[str, str]) -> dict[str, str]:
    """Return the resources that a stack with these parameters has, with their types."""
    template = StackTemplate()
    resolved, resources = Resolved(template, parameters), template.content["Resources"]
    return {
        name: item["Type"]
        for name, item in resources.items()
        if "Condition" not in item or resolved.holds(item["Condition"])
    }


def test_a_company_that_brings_everything_gets_no_network_no_group_and_no_role() -> None:
    own, company = made({}), made(COMPANY)
    assert {name for name, kind in own.items() if kind.startswith("AWS::EC2")}
    assert not {name for name, kind in company.items() if kind.startswith("AWS::EC2")}
    assert {name for name, kind in company.items() if kind == "AWS::IAM::Role"} == {"PromotionRole", "EventsRole"}
    assert {"Bucket", "FileSystem", "Promotion"} <= set(company)
    groups = made(COMPANY | {"SecurityGroupIds": ""})
    assert {"JobGroup", "LustreGroup", "EndpointGroup"} <= set(groups) and "Vpc" not in groups


def test_what_is_brought_is_what_the_rest_stands_on() -> None:
    (system,) = _resources("AWS::FSx::FileSystem", COMPANY).values()
    assert (system["SubnetIds"], system["SecurityGroupIds"]) == (["subnet-0a"], ["sg-0a", "sg-0b"])
    assert system["KmsKeyId"] == COMPANY["KmsKeyArn"]
    (bucket,) = _resources("AWS::S3::Bucket", COMPANY).values()
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": COMPANY["KmsKeyArn"]}
    for repository in _resources("AWS::ECR::Repository", COMPANY).values():
        assert repository["EncryptionConfiguration"] == {"EncryptionType": "KMS", "KmsKey": COMPANY["KmsKeyArn"]}
    outputs = {
        name: Resolved(StackTemplate(), COMPANY).value(item["Value"])
        for name, item in StackTemplate().content["Outputs"].items()
    }
    assert outputs["RoleArn"] == COMPANY["ExecutionRoleArn"]
    assert (outputs["Subnets"], outputs["SecurityGroups"]) == ("subnet-0a", "sg-0a,sg-0b")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"VpcId": "vpc-0a"}, "SubnetIds: name the private subnets of vpc-0a"),
        ({"SubnetIds": "subnet-0a"}, "VpcId: name the network"),
        ({"SecurityGroupIds": "sg-0a"}, "VpcId: name the network"),
        ({"VpcId": "vpc-0a", "SubnetIds": "subnet-0a", "InternetAccess": "true"}, "InternetAccess: the way out"),
    ],
)
def test_half_of_a_network_is_refused_before_anything_is_sent(
    target: Target, parameters: dict[str, str], named: str
) -> None:
    with pytest.raises(OperatorError, match=named):
        Infrastructure(target, interval_s=0).plan(parameters)
    assert target.client("cloudformation").list_stacks()["StackSummaries"] == []


def test_tags_are_the_stacks_and_reach_jobs_and_promotions(
    target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    infrastructure = Infrastructure(target, say=said.append, interval_s=0)
    monkeypatch.setattr(infrastructure, "_client", Recorder(sent))
    infrastructure.plan({"FileSystemGiB": "0"}, {"CostCenter": "42", "team": "art & co".replace(" & ", "-")})
    assert {tag["Key"]: tag["Value"] for tag in sent[0]["Tags"]} == {
        "project": "sd-pipeline",
        "CostCenter": "42",
        "team": "art-co",
    }
    values = {item["ParameterKey"]: item.get("ParameterValue") for item in sent[0]["Parameters"]}
    assert json.loads("[0" + values["PromotionTags"] + "]")[1:] == [
        {"Key": "CostCenter", "Value": "42"},
        {"Key": "team", "Value": "art-co"},
    ]
    with pytest.raises(OperatorError, match='--tag 4"2'):
        infrastructure.plan({}, {"CostCenter": '4"2'})


def test_a_stacks_tags_are_those_of_the_jobs(deployed: Infrastructure) -> None:
    settings = Settings.model_validate({"account": {"tags": {"team": "art"}}})
    filled = fill(settings, deployed.outputs() | {"Tags": '{"CostCenter": "42"}', "KmsKeyArn": COMPANY["KmsKeyArn"]})
    assert filled.account.tags == {"team": "art", "CostCenter": "42"}
    assert filled.account.kms_key_arn == COMPANY["KmsKeyArn"]
    # A stack without tags leaves definitions as they were.
    assert "Tags" not in deployed.outputs()


class Recorder:
    """A CloudFormation without stacks, which keeps what it is asked for."""

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        self._sent = sent

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803
        raise ClientError(
            {"Error": {"Code": "ValidationError", "Message": f"Stack with id {StackName} does not exist"}},
            "DescribeStacks",
        )

    def create_change_set(self, **request: Any) -> dict[str, Any]:
        self._sent.append(request)
        return {"Id": "change-set", "StackId": "stack"}

    def describe_change_set(self, ChangeSetName: str) -> dict[str, Any]:  # noqa: N803
        return {"Status": "CREATE_COMPLETE"}

    def get_paginator(self, name: str) -> "Recorder":
        return self

    def paginate(self, **request: Any) -> "Recorder":
        return self

    def search(self, expression: str) -> list[dict[str, Any]]:
        return []


# The zone of a new stack.


def zone_target(offered: dict[str, list[str]], plan: dict[str, Any] | None = None) -> Any:
    class Zones(FakeTarget):
        def client(self, service: str) -> Any:
            client = super().client(service)
            client.get_paginator = lambda name: self
            return client

        def paginate(self, **request: Any) -> list[dict[str, Any]]:
            asked = request["Filters"][0]["Values"]
            items = [{"InstanceType": name, "Location": zone} for name in asked for zone in offered.get(name, ())]
            return [{"InstanceTypeOfferings": items}]

    return Zones(answers={"sagemaker": {"describe_training_plan": lambda TrainingPlanName: plan}})  # noqa: N803


def test_a_new_stack_is_in_a_zone_that_has_the_training_hosts_and_most_of_the_others() -> None:
    offered = {"p4d.24xlarge": ["us-east-1c", "us-east-1d"], "g5.12xlarge": ["us-east-1a", "us-east-1d"]}
    assert zone_for(Settings(), zone_target(offered)) == ("us-east-1d", "ml.p4d.24xlarge is offered there")
    assert zone_for(Settings(), zone_target({})) == ("", "")
    two = Settings.model_validate({"phases": [{"train": {"instance_type": "ml.p5.48xlarge"}}]})
    with pytest.raises(OperatorError, match=r"no zone of us-east-1 has ml\.p4d.* and ml\.p5"):
        zone_for(two, zone_target({**offered, "p5.48xlarge": ["us-east-1a"]}))


def test_reserved_hosts_decide_the_zone() -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/spring"
    settings = Settings.model_validate({"train": {"job": {"instance_type": "ml.p4d.24xlarge", "training_plan": arn}}})
    plan = {
        "Status": "Active",
        "ReservedCapacitySummaries": [{"InstanceType": "ml.p4d.24xlarge", "AvailabilityZone": "us-east-1f"}],
    }
    assert zone_for(settings, zone_target({}, plan)) == ("us-east-1f", f"{arn} is there")


def test_a_zone_is_chosen_for_a_new_stack_alone_and_never_against_the_operator(
    target: Target, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    infrastructure = Infrastructure(target, say=said.append, interval_s=0)
    monkeypatch.setattr(infrastructure, "_client", Recorder(sent))
    monkeypatch.setattr(infrastructure, "_target", zone_target({"p4d.24xlarge": ["us-east-1c"]}))
    infrastructure.plan({}, None, Settings())
    infrastructure.plan({"AvailabilityZone": "us-east-1a"}, None, Settings())
    zones = [
        {item["ParameterKey"]: item["ParameterValue"] for item in one["Parameters"]}["AvailabilityZone"] for one in sent
    ]
    assert zones == ["us-east-1c", "us-east-1a"]
    assert said == ["AvailabilityZone=us-east-1c: ml.p4d.24xlarge is offered there"]


# Outputs to settings.


def test_fill_puts_the_stack_into_a_parameter_set(deployed: Infrastructure) -> None:
    outputs = deployed.outputs()
    outputs |= {"FileSystemId": "fs-0123456789abcdef0", "FileSystemPath": "/abcdefgh/latents"}
    filled = fill(Settings(), outputs)
    assert filled.account.bucket == outputs["BucketName"]
    assert filled.account.role_arn.startswith("arn:aws:iam::")
    assert len(filled.account.subnets) == 2
    assert len(filled.account.security_groups) == 3
    assert (filled.file_system.fsx_id, filled.file_system.fsx_path) == ("fs-0123456789abcdef0", "/abcdefgh/latents")
    assert filled.data.url_table == f"s3://{outputs['BucketName']}/urls/"
    assert filled.images.data == f"{outputs['DataRepositoryUri']}:latest"
    assert filled.train == Settings().train


def test_fill_takes_the_newest_image_of_each_repository_by_its_digest(deployed: Infrastructure, target: Target) -> None:
    for tag in ("0a1b2c3d4e5f", "f5e4d3c2b1a0"):
        target.client("ecr").put_image(
            repositoryName="sd-pipeline-training",
            imageManifest=json.dumps({"schemaVersion": 2, "config": {"digest": tag}, "layers": []}),
            imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
            imageTag=tag,
        )
        time.sleep(1.1)  # moto pushes at whole seconds
    outputs = deployed.outputs()
    (newest,) = target.client("ecr").describe_images(
        repositoryName="sd-pipeline-training", imageIds=[{"imageTag": "f5e4d3c2b1a0"}]
    )["imageDetails"]
    assert outputs["TrainingImage"] == f"{outputs['TrainingRepositoryUri']}@{newest['imageDigest']}"
    assert fill(Settings(), outputs).images.training == outputs["TrainingImage"]


def test_addresses_outside_the_former_bucket_stay_where_they_are(deployed: Infrastructure) -> None:
    settings = Settings.model_validate({"data": {"url_table": "s3://elsewhere/urls/"}})
    assert fill(settings, deployed.outputs()).data.url_table == "s3://elsewhere/urls/"


def test_a_stack_without_an_output_is_named() -> None:
    with pytest.raises(SettingsError, match="no output 'RoleArn'"):
        fill(Settings(), {"BucketName": "b"})


def test_outputs_of_a_stack_that_is_not_there_say_how_to_make_it(target: Target) -> None:
    with pytest.raises(OperatorError, match="sd-pipeline infra deploy"):
        Infrastructure(target, "nothing").outputs()


class RolledBack:
    """A CloudFormation whose stack failed to be created: moto's never fail."""

    def __init__(self) -> None:
        self.happened = 1

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803
        return {"Stacks": [{"StackStatus": "ROLLBACK_COMPLETE"}]}

    def get_paginator(self, name: str) -> "RolledBack":
        assert name == "describe_stack_events"
        return self

    def paginate(self, StackName: str) -> list[dict[str, Any]]:  # noqa: N803
        told = [
            ("CREATE_IN_PROGRESS", "sd-pipeline", "AWS::CloudFormation::Stack", "User Initiated"),
            ("CREATE_FAILED", "FileSystem", "AWS::FSx::FileSystem", "not enough capacity in us-east-1a"),
            ("CREATE_FAILED", "Bucket", "AWS::S3::Bucket", "Resource creation cancelled"),
            ("ROLLBACK_COMPLETE", "sd-pipeline", "AWS::CloudFormation::Stack", ""),
        ]
        events = [
            {
                "EventId": str(number),
                "Timestamp": datetime(2026, 1, 1, tzinfo=UTC),
                "ResourceStatus": status,
                "LogicalResourceId": resource,
                "ResourceType": kind,
                "ResourceStatusReason": reason,
            }
            for number, (status, resource, kind, reason) in enumerate(told)
        ]
        return [{"StackEvents": events[: self.happened][::-1]}]


def _resources(kind: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
    template = StackTemplate()
    resolved = Resolved(template, parameters or {})
    named = {name: item for name, item in template.content["Resources"].items() if item["Type"] == kind}
    return {name: resolved.value(item.get("Properties", {})) for name, item in named.items()}


def _create(target: Target, body: str, name: str, **parameters: str) -> None:
    values = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    target.client("cloudformation").create_stack(StackName=name, TemplateBody=body, Parameters=values)


def _register(target: Target, group: str) -> str:
    client = target.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName=group)
    arn: str = client.create_model_package(ModelPackageGroupName=group)["ModelPackageArn"]
    return arn


def _catch_deleted_packages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """moto has no DeleteModelPackage: answer it, and return the list of what was to be deleted."""
    deleted: list[str] = []
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def answer(self: BaseClient, operation: str, request: dict[str, Any]) -> Any:
        if operation != "DeleteModelPackage":
            return call(self, operation, request)
        deleted.append(request["ModelPackageName"])
        return {}

    monkeypatch.setattr(BaseClient, "_make_api_call", answer)
    return deleted


def _run_endpoint(target: Target, name: str) -> None:
    client = target.client("sagemaker")
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-inference:1"
    role = "arn:aws:iam::123456789012:role/any"
    client.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": image})
    variant = {
        "VariantName": "production",
        "ModelName": name,
        "InstanceType": "ml.g4dn.xlarge",
        "InitialInstanceCount": 1,
    }
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
