"""Do the training plans that a parameter set names hold its trainings?

Reads SageMaker DescribeTrainingPlan and EC2 DescribeSubnets of one target; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from params.s3 import unless_missing
from params.settings import Settings
from pipeline_definition.checks.durations import KEYS
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.zones import Offerings
from pipeline_definition.jobs.planned import PlannedJob
from pipeline_definition.session import Target

USABLE = ("Active", "Scheduled", "Pending")


def plan_findings(settings: Settings, jobs: list[PlannedJob], target: Target) -> Iterator[Finding]:
    """Check each plan: its status, what it is for, type, hosts, zone, and its end against the job's time limit."""
    offerings = Offerings(settings, target)
    for job in jobs:
        if not job.training_plan:
            continue
        key = f"{KEYS.get(job.step, f'{job.step.lower()}.job')}.training_plan"
        name = job.training_plan.rsplit("/", 1)[-1]
        plan = unless_missing(target.client("sagemaker").describe_training_plan, TrainingPlanName=name)
        if plan is None:
            yield Finding(
                key, f"there is no {job.training_plan}", "take the ARN from `aws sagemaker list-training-plans`"
            )
            continue
        own = offerings.own if job.in_network else set()
        for problem in filter(None, (_misfit(plan, job), _elsewhere(plan, own))):
            yield Finding(key, f"{job.training_plan} {problem}", "name a plan that fits, or leave it out")
        end = plan.get("EndTime")
        begin = max(datetime.now(UTC), plan.get("StartTime") or datetime.now(UTC))
        if end and (end - begin).total_seconds() < job.max_runtime_s:
            problem = f"the plan ends on {end:%Y-%m-%d %H:%M} UTC, and {job.step} may run for {job.max_runtime_s} s"
            yield Finding(key, problem, "the next start goes on from the last checkpoint", blocking=False)


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


def _elsewhere(plan: Mapping[str, Any], own: set[str]) -> str:
    """Return where the reserved hosts are, if that is in none of the subnets' zones."""
    zones = {capacity.get("AvailabilityZone", "") for capacity in plan.get("ReservedCapacitySummaries", ())} - {""}
    if not zones or not own or zones & own:
        return ""
    return f"is in {' and '.join(sorted(zones))}, and the subnets are in {' and '.join(sorted(own))}"
