"""Preferences, reserved hosts, the account's key and its tags in the definition: what the API takes, and where."""

import functools
import json
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
from botocore.validate import ParamValidator

from params.instances import has_local_disk
from params.settings import Settings, SettingsError, load_settings, parse_settings
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.definition.terms import TAGGED
from pipeline_definition.jobs.planned import PlannedJob, Values, planned_jobs
from tests.pipeline_definition.definition.test_pipeline import (
    OPERATIONS,
    SCHEMA,
    SCHEMA_KINDS,
    step_for_schema,
    without,
)
from tests.pipeline_definition.definitions import all_steps, at_defaults, defaults_of

PLAN = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/spring"
RESERVATION = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/endpoints"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
# What the published schema of definitions does not know of these.
NEWER_TERMS = (
    "InstancePreferences",
    "InstancePools",
    "TrainingPlanArn",
    "TrainingPlanArns",
    "CapacityReservationConfig",
)
ENDPOINT = "instance_type: ml.g5.2xlarge, instance_preferences: [{instance_type: ml.g6.2xlarge"


def set_with(**sections: dict[str, Any]) -> Settings:
    values = load_settings(Path("params/octank_100gb.yaml")).model_dump(exclude_unset=True)
    for name, fields in sections.items():
        section = values.setdefault(name, {})
        for key, value in fields.items():
            section[key] = section.get(key, {}) | value if isinstance(value, dict) and key == "job" else value
    return Settings.model_validate(values)


@functools.cache
def full() -> dict[str, Any]:
    others = {"instance_preferences": [{"instance_type": "ml.p4de.24xlarge"}, {"instance_type": "ml.p5.48xlarge"}]}
    cheap = {"instance_preferences": [{"instance_type": "ml.g6.12xlarge", "instance_count": 3}]}
    settings = set_with(
        account={"kms_key_arn": KEY, "tags": {"CostCenter": "42", "team": "art"}},
        download={"job": {"instance_preferences": [{"instance_type": "ml.m5.4xlarge"}]}},
        encode={"job": cheap},
        tune={"job": {**others, "training_plan": PLAN}},
        train={"job": {**others, "training_plan": PLAN}},
        evaluate={"job": cheap},
        endpoint={"job": {"instance_preferences": [{"instance_type": "ml.g6.2xlarge"}]}},
        throughput={},
    )
    definition: dict[str, Any] = json.loads(build_definition(settings))
    return definition


def arguments(step: str) -> dict[str, Any]:
    found: dict[str, Any] = all_steps(full())[step]["Arguments"]
    return found


def planned(step: str, **changes: str) -> PlannedJob:
    return next(job for job in planned_jobs(full(), Values(full(), changes)) if job.step == step)


def test_every_request_with_all_terms_is_one_that_the_api_takes() -> None:
    parameters, checked = defaults_of(full()), 0
    model = botocore.session.get_session().get_service_model("sagemaker")
    for step in all_steps(full()).values():
        if step["Type"] in OPERATIONS:
            operation, service_sets = OPERATIONS[step["Type"]]
            request = {**service_sets, **at_defaults(step["Arguments"], parameters)}
            report = ParamValidator().validate(request, model.operation_model(operation).input_shape)
            assert not report.has_errors(), f"{step['Name']}: {report.generate_report()}"
            checked += 1
    assert checked == 10


def test_the_published_schema_knows_all_but_what_is_listed_as_newer() -> None:
    for step in all_steps(full()).values():
        if step["Type"] != "EndpointConfig":
            kind = {**SCHEMA["definitions"][SCHEMA_KINDS[step["Type"]]], "definitions": SCHEMA["definitions"]}
            known = without(step_for_schema(step, defaults_of(full())), NEWER_TERMS)
            jsonschema.Draft7Validator(kind).validate(known)


def test_sagemaker_chooses_where_the_api_takes_a_list_and_the_parameters_stay_its_head() -> None:
    kind, count = ({"Get": f"Parameters.EncodeInstance{what}"} for what in ("Type", "Count"))
    cluster = arguments("Encode")["ProcessingResources"]["ClusterConfig"]
    assert cluster["InstancePreferences"] == [
        {"InstanceType": kind, "InstanceCount": count},
        {"InstanceType": "ml.g6.12xlarge", "InstanceCount": 3},
    ]
    # Either a list or one type, never both: SageMaker refuses that.
    assert not {"InstanceType", "InstanceCount"} & set(cluster)
    hosts = arguments("Train")["ResourceConfig"]
    assert [entry["InstanceType"] for entry in hosts["InstancePreferences"][1:]] == [
        "ml.p4de.24xlarge",
        "ml.p5.48xlarge",
    ]
    assert all(
        entry["InstanceCount"] == {"Get": "Parameters.TrainingInstanceCount"} for entry in hosts["InstancePreferences"]
    )
    pools = arguments("EndpointConfig")["ProductionVariants"][0]["InstancePools"]
    assert [pool["Priority"] for pool in pools] == [1, 2]


def test_trials_and_the_measurement_of_trains_hosts_keep_one_type() -> None:
    for hosts in (
        arguments("Tune")["TrainingJobDefinition"]["ResourceConfig"],
        arguments("Throughput")["ResourceConfig"],
    ):
        assert "InstancePreferences" not in hosts and "InstanceType" in hosts


def test_a_training_plan_is_the_first_types_alone() -> None:
    first, *others = arguments("Train")["ResourceConfig"]["InstancePreferences"]
    assert first["TrainingPlanArns"] == [PLAN]
    assert not any("TrainingPlanArns" in other for other in others)
    assert arguments("Tune")["TrainingJobDefinition"]["ResourceConfig"]["TrainingPlanArn"] == PLAN
    assert arguments("Throughput")["ResourceConfig"]["TrainingPlanArn"] == PLAN


@pytest.mark.parametrize("section", [{"train": {"spot": True}}, {"encoders": {}, "file_system": {"kind": "s3"}}])
def test_with_spot_or_encoders_the_list_is_left_to_start(section: dict[str, Any]) -> None:
    other = {"instance_preferences": [{"instance_type": "ml.p5.48xlarge"}]}
    sections = {"train": {"job": other} | section.get("train", {})} | {k: v for k, v in section.items() if k != "train"}
    train = all_steps(json.loads(build_definition(set_with(**sections))))["Train"]["Arguments"]
    assert "InstancePreferences" not in train["ResourceConfig"]


def test_an_endpoint_takes_its_reserved_hosts_and_no_others() -> None:
    settings = set_with(endpoint={"capacity_reservation": RESERVATION})
    variant = all_steps(json.loads(build_definition(settings)))["EndpointConfig"]["Arguments"]["ProductionVariants"][0]
    assert variant["CapacityReservationConfig"] == {
        "CapacityReservationPreference": "capacity-reservations-only",
        "MlReservationArn": RESERVATION,
    }


def test_results_have_the_accounts_key_and_disks_where_the_host_takes_one() -> None:
    assert arguments("Download")["ProcessingOutputConfig"]["KmsKeyId"] == KEY
    assert arguments("Train")["OutputDataConfig"]["KmsKeyId"] == KEY
    assert arguments("Tune")["TrainingJobDefinition"]["OutputDataConfig"]["KmsKeyId"] == KEY
    assert arguments("Download")["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == KEY
    # GPU hosts encrypt their own disks, and SageMaker refuses a key for these.
    assert "VolumeKmsKeyId" not in arguments("Train")["ResourceConfig"]
    assert "KmsKeyId" not in arguments("EndpointConfig")


@pytest.mark.parametrize(
    ("name", "has"),
    [
        *((name, True) for name in ("ml.g4dn.xlarge", "ml.g5.12xlarge", "ml.p4d.24xlarge", "ml.p6-b200.48xlarge")),
        *((name, True) for name in ("ml.r5d.large", "ml.c5d.xlarge", "ml.p3dn.24xlarge", "ml.gr6.4xlarge")),
        *((name, False) for name in ("ml.c6i.4xlarge", "ml.m5.large", "ml.p3.2xlarge", "ml.m7i-flex.large")),
    ],
)
def test_which_hosts_have_disks_of_their_own(name: str, has: bool) -> None:
    assert has_local_disk(name) == has


def test_tags_are_on_everything_that_may_have_them() -> None:
    own = [{"Key": "CostCenter", "Value": "42"}, {"Key": "team", "Value": "art"}]
    steps = all_steps(full()).values()
    for step in steps:
        assert step["Arguments"].get("Tags", [])[-2:] == (own if step["Type"] in TAGGED else []), step["Name"]
    # A package has its group's tags: CreateModelPackage refuses others.
    assert {step["Type"] for step in steps} - {*TAGGED} == {"Condition", "Fail", "RegisterModel"}


def test_planned_jobs_know_every_host_that_a_job_may_get() -> None:
    job = planned("Encode", EncodeInstanceCount="5")
    assert [(one.instance.name, one.count) for one in job.alternatives()] == [
        ("ml.g5.12xlarge", 5),
        ("ml.g6.12xlarge", 3),
    ]
    assert (job.type_parameter, job.count_parameter) == ("EncodeInstanceType", "EncodeInstanceCount")
    train = planned("Train")
    assert [(one.instance.name, one.count, one.training_plan) for one in train.alternatives()] == [
        ("ml.p4d.24xlarge", 1, PLAN),
        ("ml.p4de.24xlarge", 1, ""),
        ("ml.p5.48xlarge", 1, ""),
    ]
    assert planned("Download").has_volume_key and not train.has_volume_key
    assert [one.instance.name for one in planned("EndpointConfig").alternatives()] == ["ml.g5.2xlarge", "ml.g6.2xlarge"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train: {spot: true, job: {instance_type: ml.p4d.24xlarge, training_plan: PLAN}}", "set train.spot to false"),
        ("tune: {spot: true, job: {instance_type: ml.p4d.24xlarge, training_plan: PLAN}}", "set tune.spot to false"),
        ("encoders: {}\ntrain: {job: {instance_type: ml.p4d.24xlarge, training_plan: PLAN}}", "encoders are another"),
        ("encode: {job: {instance_type: ml.g5.12xlarge, training_plan: PLAN}}", "encode.job.training_plan"),
        (f"endpoint: {{capacity_reservation: PLAN, job: {{{ENDPOINT}}}]}}}}", "has one type"),
        (f"endpoint: {{job: {{{ENDPOINT}, instance_count: 2}}]}}}}", "one count"),
        ("train: {job: {instance_type: ml.p4d.24xlarge, training_plan: spring}}", "train.job.training_plan"),
        ("account: {tags: {'a\\tb': c}}", "account.tags"),
        ("account: {kms_key_arn: alias/mine}", "account.kms_key_arn"),
    ],
)  # fmt: skip
def test_terms_that_contradict_each_other_are_refused_where_the_set_is_read(text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named.replace(".", r"\.")):
        parse_settings(text.replace("PLAN", PLAN), "set")
