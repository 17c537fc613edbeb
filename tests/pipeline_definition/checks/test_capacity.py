"""Hosts as people get them: lists of types, reserved hosts, zones and quotas, before a start and at it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from params.settings import Settings
from pipeline_definition.checks.budget import filled_in
from pipeline_definition.checks.capacity import Capacity
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.prices import Prices, load_prices
from pipeline_definition.cost.training import CostError
from pipeline_definition.definition.terms import with_terms
from pipeline_definition.jobs.planned import PlannedJob, Values, planned_jobs
from tests.pipeline_definition.definition.test_terms import PLAN, set_with
from tests.pipeline_definition.definitions import definition_of
from tests.pipeline_definition.fake_aws import FakeTarget, refused

P4DE, P5 = {"instance_type": "ml.p4de.24xlarge"}, {"instance_type": "ml.p5.48xlarge"}
SUBNETS = ("subnet-1", "subnet-2")


class Account(FakeTarget):
    """Zones and quotas of an account."""

    offered: dict[str, list[str]]
    quotas: dict[str, float]
    plan: dict[str, Any] | None

    @classmethod
    def of(
        cls,
        offered: dict[str, list[str]] | None = None,
        quotas: dict[str, float] | None = None,
        plan: dict[str, Any] | None = None,
        zones: tuple[str, ...] = ("us-east-1a",),
    ) -> "Account":
        subnets = {"Subnets": [{"SubnetId": "subnet-1", "AvailabilityZone": zone} for zone in zones]}

        def describe_training_plan(TrainingPlanName: str) -> dict[str, Any]:  # noqa: N803
            if plan is None:
                raise refused("DescribeTrainingPlan", "no such plan", "ResourceNotFound")
            return plan

        answers = {
            "ec2": {"describe_subnets": lambda Filters: subnets},  # noqa: N803
            "sagemaker": {"describe_training_plan": describe_training_plan},
        }
        account = cls(answers=answers)
        object.__setattr__(account, "offered", offered or {})
        object.__setattr__(account, "quotas", quotas or {})
        return account

    def client(self, service: str) -> Any:
        client = super().client(service)
        client.get_paginator = lambda name: self
        return client

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        if "ServiceCode" in request:
            return [{"Quotas": [{"QuotaName": name, "Value": value} for name, value in self.quotas.items()]}]
        asked = request["Filters"][0]["Values"]
        items = [{"InstanceType": name, "Location": zone} for name in asked for zone in self.offered.get(name, ())]
        return [{"InstanceTypeOfferings": items}]


def in_network(settings: Settings) -> tuple[Settings, dict[str, Any]]:
    """Return a set with subnets, and its definition: the delivered one, on the account's terms."""
    account = settings.account.model_copy(update={"subnets": SUBNETS})
    settings = settings.model_copy(update={"account": account})
    definition = definition_of("octank_100gb")
    for step in definition["Steps"]:
        step["Arguments"].get("TrainingJobDefinition", step["Arguments"])["VpcConfig"] = {"Subnets": list(SUBNETS)}
        if step["Type"] == "Training" and settings.train.spot:
            step["Arguments"]["EnableManagedSpotTraining"] = True
    return settings, with_terms(definition, settings)


def jobs_of(definition: dict[str, Any], step: str = "") -> list[PlannedJob]:
    return [job for job in planned_jobs(definition, Values(definition, {})) if step in ("", job.step)]


def choice(settings: Settings, account: Account, **given: str) -> tuple[dict[str, str], list[str]]:
    settings, definition = in_network(settings)
    return Capacity(settings, account).chosen_hosts(jobs_of(definition), given)


# At the start.


def test_where_the_api_takes_one_type_start_takes_the_first_that_zone_and_quota_have_and_says_so() -> None:
    settings = set_with(tune={"job": {"instance_preferences": [P4DE, {**P5, "instance_count": 2}]}})
    offered = {"p4d.24xlarge": ["us-east-1d"], "p4de.24xlarge": ["us-east-1a"], "p5.48xlarge": ["us-east-1a"]}
    account = Account.of(offered, {"ml.p4de.24xlarge for training job usage": 0})
    changes, (line,) = choice(settings, account)
    assert changes == {"TuneInstanceType": "ml.p5.48xlarge", "TuneInstanceCount": "2"}
    assert line.startswith("Tune: 2 x ml.p5.48xlarge, for ml.p4d.24xlarge is not offered in us-east-1a")
    assert "the quota 'ml.p4de.24xlarge for training job usage' is 0" in line


def test_the_first_type_is_taken_in_silence_where_it_can_be_had() -> None:
    settings = set_with(tune={"job": {"instance_preferences": [P5]}})
    assert choice(settings, Account.of()) == ({}, [])


def test_what_the_operator_names_stays_and_what_sagemaker_chooses_from_is_left_to_it() -> None:
    none = {"ml.p4d.24xlarge for training job usage": 0.0}
    tune = set_with(tune={"job": {"instance_preferences": [P5]}})
    assert choice(tune, Account.of(quotas=none), TuneInstanceType="ml.p4d.24xlarge") == ({}, [])
    assert choice(set_with(train={"job": {"instance_preferences": [P5]}}), Account.of(quotas=none)) == ({}, [])


def test_with_spot_start_chooses_trains_hosts_too() -> None:
    settings = set_with(train={"spot": True, "job": {"instance_preferences": [P5]}})
    account = Account.of(quotas={"ml.p4d.24xlarge for spot training job usage": 0.0})
    changes, _ = choice(settings, account)
    assert changes == {"TrainingInstanceType": "ml.p5.48xlarge", "TrainingInstanceCount": "1"}


def test_a_start_without_the_right_to_ask_takes_the_first_and_says_so() -> None:
    class Denied(Account):
        def paginate(self, **request: Any) -> list[dict[str, Any]]:
            raise refused("ListServiceQuotas")

    settings = set_with(tune={"job": {"instance_preferences": [P5]}})
    changes, (line,) = choice(settings, Denied.of())
    assert changes == {} and line.startswith("Tune: ml.p4d.24xlarge, for what there is could not be asked")


# Before it.


def found(settings: Settings, account: Account, step: str) -> list[Finding]:
    settings, definition = in_network(settings)
    jobs = jobs_of(definition, step)
    capacity = Capacity(settings, account)
    return [*capacity.zone_findings(jobs), *capacity.quota_findings(jobs)]


def test_a_list_blocks_only_where_nothing_on_it_can_be_had() -> None:
    settings = set_with(train={"job": {"instance_preferences": [P5]}})
    first = {"ml.p4d.24xlarge for training job usage": 0.0}
    (finding,) = found(settings, Account.of(quotas=first), "Train")
    assert not finding.blocking and "ml.p4d.24xlarge" in finding.problem
    both = found(settings, Account.of(quotas={**first, "ml.p5.48xlarge for training job usage": 0.0}), "Train")
    assert [finding.blocking for finding in both] == [True, True]
    assert both[1].parameter == "Train's instance_preferences"


def test_the_one_of_the_subnets_zones_that_has_the_type_is_told() -> None:
    offered = {"p4d.24xlarge": ["us-east-1b", "us-east-1d"]}
    account = Account.of(offered, zones=("us-east-1a", "us-east-1b"))
    (finding,) = found(set_with(), account, "Train")
    assert not finding.blocking
    assert finding.problem == "of the subnets' zones, us-east-1b has ml.p4d.24xlarge"


def test_every_type_of_a_list_is_judged_offline() -> None:
    settings = set_with(train={"job": {"instance_preferences": [{"instance_type": "ml.g4dn.xlarge"}, P4DE]}})
    settings, definition = in_network(settings)
    findings = [
        str(finding) for finding in preflight(settings, definition, {}) if "instance_preferences" in str(finding)
    ]
    assert any("T4 of ml.g4dn.xlarge has no bfloat16" in line for line in findings)
    assert not any("p4de" in line for line in findings)


KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"


def test_a_disk_that_takes_the_accounts_key_gets_it_and_one_that_takes_none_is_not_asked_to() -> None:
    settings, definition = in_network(set_with(account={"kms_key_arn": KEY}))
    assert not [finding for finding in preflight(settings, definition, {}) if "disks" in finding.problem]
    own = preflight(settings, definition, {"DownloadInstanceType": "ml.c5d.4xlarge"})
    assert any("encrypts its own disks" in finding.problem and finding.blocking for finding in own)
    bare = preflight(settings, definition, {"EncodeInstanceType": "ml.p3.8xlarge"})
    assert any("would not be encrypted under account.kms_key_arn" in finding.problem for finding in bare)


# Reserved hosts.

CAPACITY = {"InstanceType": "ml.p4d.24xlarge", "TotalInstanceCount": 4, "AvailabilityZone": "us-east-1a"}
GOOD: dict[str, Any] = {
    "Status": "Active",
    "TargetResources": ["training-job"],
    "TotalInstanceCount": 4,
    "ReservedCapacitySummaries": [CAPACITY],
    "EndTime": datetime.now(UTC) + timedelta(days=300),
}


def reserving(**other: str) -> dict[str, Any]:
    return GOOD | {"ReservedCapacitySummaries": [CAPACITY | other]}


def plan_problems(plan: dict[str, Any] | None) -> list[Finding]:
    settings, definition = in_network(set_with(train={"job": {"training_plan": PLAN}}))
    return list(Capacity(settings, Account.of(plan=plan)).plan_findings(jobs_of(definition, "Train")))


def test_a_plan_that_fits_is_no_finding() -> None:
    assert plan_problems(GOOD) == []


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (None, "there is no arn:aws:sagemaker"),
        (GOOD | {"Status": "Expired"}, "is Expired"),
        (GOOD | {"TargetResources": ["endpoint"]}, "is for endpoint, not for training jobs"),
        (reserving(InstanceType="ml.p5.48xlarge"), "reserves ml.p5.48xlarge"),
        (GOOD | {"TotalInstanceCount": 0}, "has 0 hosts, and Train needs 1"),
        (reserving(AvailabilityZone="us-east-1f"), "is in us-east-1f, and the subnets"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(plan: dict[str, Any] | None, named: str) -> None:
    (finding,) = plan_problems(plan)
    assert finding.blocking and named in finding.problem and finding.parameter == "train.job.training_plan"


def test_a_plan_that_ends_first_is_told_and_does_not_block() -> None:
    (finding,) = plan_problems(GOOD | {"EndTime": datetime.now(UTC) + timedelta(hours=3)})
    assert not finding.blocking and "the plan ends on" in finding.problem


def test_reserved_hosts_need_no_quota_on_demand() -> None:
    settings = set_with(train={"job": {"training_plan": PLAN}})
    assert found(settings, Account.of(quotas={"ml.p4d.24xlarge for training job usage": 0.0}), "Train") == []


def test_reserved_hosts_cost_what_the_plan_costs_and_fail_without_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, definition = in_network(set_with(train={"job": {"training_plan": PLAN}}))
    (line,) = [line for line in forecast(settings, definition, {}).lines if line.step == "Train"]
    usd = load_prices().known("ml.p4d.24xlarge", "training_plan").usd
    assert list(line.usd.values()) == [pytest.approx(line.hours * usd)] * 3
    assert "Capacity Blocks" in line.price
    unpriced = without_plans_price("ml.p4d.24xlarge")
    monkeypatch.setattr("pipeline_definition.cost.forecast.load_prices", lambda: unpriced)
    with pytest.raises(CostError, match=r"training plan price of ml\.p4d.*cost prices plan ARN"):
        forecast(settings, definition, {})


def without_plans_price(name: str) -> Prices:
    prices = load_prices()
    entry = {way: price for way, price in prices.instances[name].items() if way != "training_plan"}
    return prices.model_copy(update={"instances": {**prices.instances, name: entry}})


def test_a_forecast_names_what_a_job_may_get_instead_and_a_budget_reckons_with_the_dearest() -> None:
    settings, definition = in_network(set_with(train={"job": {"instance_preferences": [P5]}}))
    (line,) = [line for line in forecast(settings, definition, {}).lines if line.step == "Train"]
    assert line.what.endswith("else 1 x ml.p5.48xlarge ($63.30 an hour each)")
    filled = filled_in(settings, definition, {"TrainingInstanceType": "ml.p4d.24xlarge"})
    assert filled["TrainingInstanceHourUsd"] == "63.296"
