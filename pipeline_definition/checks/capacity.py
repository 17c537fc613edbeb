"""Can the jobs have their hosts: in the zones of their subnets, within the quotas, by the training plans of the set?

Reads EC2's subnets and offerings, Service Quotas, and SageMaker's training plans of one target; writes nothing. A file
system ties the jobs to one zone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from params.s3 import unless_missing
from params.settings import Settings
from pipeline_definition.checks.budget import job_key
from pipeline_definition.checks.findings import Finding
from pipeline_definition.infrastructure.zone import zones_of
from pipeline_definition.jobs.instances import instance
from pipeline_definition.jobs.planned import PlannedJob
from pipeline_definition.session import Target

QUOTA_OF_KIND = {"training": "training job", "processing": "processing job", "endpoint": "endpoint"}
LONGEST_TRAINING = "Longest run time for a training job"
USABLE = ("Active", "Scheduled", "Pending")
# Their hosts are those of the training that they belong to.
FOLLOWERS = ("throughput", "stream")


class Capacity:
    """What the account and the zones of its subnets have; each is asked for once."""

    def __init__(self, settings: Settings, target: Target) -> None:
        self._settings, self._target = settings, target
        self._zones: dict[str, set[str]] = {}

    @cached_property
    def _ec2(self) -> Any:
        return self._target.client("ec2")

    @cached_property
    def _own_zones(self) -> set[str]:
        chosen = [{"Name": "subnet-id", "Values": list(self._settings.account.subnets)}]
        return {subnet["AvailabilityZone"] for subnet in self._ec2.describe_subnets(Filters=chosen)["Subnets"]}

    @cached_property
    def _quotas(self) -> dict[str, float]:
        """SageMaker's quotas by their names in Service Quotas."""
        pages = self._target.client("service-quotas").get_paginator("list_service_quotas")
        return {q["QuotaName"]: q["Value"] for p in pages.paginate(ServiceCode="sagemaker") for q in p["Quotas"]}

    def zone_findings(self, jobs: Sequence[PlannedJob]) -> Iterator[Finding]:
        """Check every job in the operator's network, and tell where a type is in some of the subnets' zones alone."""
        for job in jobs:
            yield from _of_alternatives(job, self._zone_finding)
            offering = self._offering_zones(job)
            if offering & self._own_zones and self._own_zones - offering:
                problem = f"of the subnets' zones, {_words(offering & self._own_zones)} has {job.instance.name}"
                yield Finding(job.type_parameter, problem, f"{job.step} starts there, or not at all", blocking=False)

    def quota_findings(self, jobs: Sequence[PlannedJob]) -> Iterator[Finding]:
        """Check every job's hosts, and how long a training may run."""
        longest_s = self._quotas.get(LONGEST_TRAINING)
        for job in jobs:
            yield from _of_alternatives(job, self._quota_finding)
            if job.kind == "training" and longest_s is not None and job.max_runtime_s > longest_s:
                problem = f"{job.step} may run for {job.max_runtime_s} s and the quota is {longest_s:g} s"
                fix = "ask Service Quotas for more, or lower it: checkpoints let the next start go on"
                yield Finding("train.job.max_runtime_s", problem, fix)

    def plan_findings(self, jobs: Sequence[PlannedJob]) -> Iterator[Finding]:
        """Check each training plan: status, what it is for, type, hosts, zone, and its end against the time limit."""
        for job in (job for job in jobs if job.training_plan):
            key, arn = f"{job_key(job.step)}.training_plan", job.training_plan
            describe = self._target.client("sagemaker").describe_training_plan
            plan = unless_missing(describe, TrainingPlanName=arn.rsplit("/", 1)[-1])
            if plan is None:
                yield Finding(key, f"there is no {arn}", "take the ARN from `aws sagemaker list-training-plans`")
                continue
            problems, own = [_misfit(plan, job)], self._own_zones if job.in_network else set()
            zones = {one.get("AvailabilityZone", "") for one in plan.get("ReservedCapacitySummaries", ())} - {""}
            if zones and own and not zones & own:
                there, here = (" and ".join(sorted(names)) for names in (zones, own))
                problems.append(f"is in {there}, and the subnets are in {here}")
            for problem in filter(None, problems):
                yield Finding(key, f"{arn} {problem}", "name a plan that fits, or leave it out")
            now, end = datetime.now(UTC), plan.get("EndTime")
            if end and (end - max(now, plan.get("StartTime") or now)).total_seconds() < job.max_runtime_s:
                problem = f"the plan ends on {end:%Y-%m-%d %H:%M} UTC, and {job.step} may run for {job.max_runtime_s} s"
                yield Finding(key, problem, "the next start goes on from the last checkpoint", blocking=False)

    def chosen_hosts(self, jobs: Sequence[PlannedJob], given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        """Return the parameters to change where a first type cannot be had and the API takes no list, and why."""
        changes: dict[str, str] = {}
        lines: list[str] = []
        for job in jobs:
            wished, reasons = self._settings.job_of(job.step), list[str]()
            decided = job.fallbacks or job.training_plan or job.type_parameter in given or job.program in FOLLOWERS
            others = [
                replace(job, instance=instance(one.instance_type), count=one.instance_count or job.count)
                for one in (() if wished is None or decided else wished.instance_preferences)
            ]
            for option in (job, *others) if others else ():
                try:
                    finding = self._zone_finding(option) or self._quota_finding(option)
                except (ClientError, BotoCoreError) as error:
                    lines.append(f"{job.step}: {option.instance.name}, for what there is could not be asked: {error}")
                    break
                if finding is None:
                    if reasons:
                        changes |= {job.type_parameter: option.instance.name, job.count_parameter: str(option.count)}
                        lines.append(f"{job.step}: {option.count} x {option.instance.name}, for {'; '.join(reasons)}")
                    break
                reasons.append(finding.problem)
        return changes, lines

    def _offering_zones(self, job: PlannedJob) -> set[str]:
        """Return the zones that have a job's type; none where EC2 does not tell, or the job is in no own network."""
        name = job.instance.name.removeprefix("ml.")
        if job.in_network and name not in self._zones:
            self._zones |= {name: set()} | zones_of(self._ec2, [name])
        return self._zones[name] if job.in_network else set()

    def _zone_finding(self, job: PlannedJob) -> Finding | None:
        zones = self._offering_zones(job)
        if not zones or not self._own_zones or zones & self._own_zones:
            return None
        problem = f"{job.instance.name} is not offered in {_words(self._own_zones)}, where the subnets are"
        fix = f"use subnets in {_words(zones)} (`sd-pipeline infra deploy --set AvailabilityZone=...`), or another type"
        return Finding(job.type_parameter, problem, fix)

    def _quota_finding(self, job: PlannedJob) -> Finding | None:
        """Return what is in the way of a job's hosts; reserved hosts have a quota of the plan's own."""
        spot = "spot " if job.spot else ""
        name, needed = f"{job.instance.name} for {spot}{QUOTA_OF_KIND[job.kind]} usage", job.count * job.parallel
        if job.training_plan or needed <= self._quotas.get(name, needed):
            return None
        problem = f"{job.step} needs {needed} and the quota '{name}' is {self._quotas[name]:g}"
        return Finding(job.count_parameter, problem, "ask Service Quotas for more, or use fewer hosts or another type")


def _of_alternatives(job: PlannedJob, finding_of: Callable[[PlannedJob], Finding | None]) -> Iterator[Finding]:
    """Yield what is in a job's way: it blocks where it is in the way of every host that the job may get."""
    findings = [finding_of(one) for one in job.alternatives()]
    yield from (replace(finding, blocking=all(findings)) for finding in findings if finding)


def _misfit(plan: Mapping[str, Any], job: PlannedJob) -> str:
    types = {capacity["InstanceType"] for capacity in plan.get("ReservedCapacitySummaries", ())}
    needed = job.count * job.parallel
    if plan["Status"] not in USABLE:
        return f"is {plan['Status']}"
    if "training-job" not in plan.get("TargetResources", ["training-job"]):
        return f"is for {' and '.join(plan['TargetResources'])}, not for training jobs"
    if types and job.instance.name not in types:
        return f"reserves {' and '.join(sorted(types))}, and {job.step} runs on {job.instance.name}"
    if needed > plan.get("TotalInstanceCount", needed):
        return f"has {plan['TotalInstanceCount']} hosts, and {job.step} needs {needed}"
    return ""


def _words(zones: set[str]) -> str:
    return " or ".join(sorted(zones))
