"""The zone of a new stack: one that offers the hosts of a parameter set's training, or where they are reserved.

Reads EC2 DescribeInstanceTypeOfferings and SageMaker DescribeTrainingPlan of one target; writes nothing.

    sd-pipeline infra deploy --params params/sd2_base.yaml
"""

from collections.abc import Iterable
from typing import Any

from params.settings import Settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target


def zone_for(settings: Settings, target: Target) -> tuple[str, str]:
    """Return a zone, the trainings' first, and why; nothing where EC2 tells of none. OperatorError: none has all."""
    plans = [phase.train.job.training_plan for phase in settings.phases if phase.train.job.training_plan]
    for arn in plans:
        plan = target.client("sagemaker").describe_training_plan(TrainingPlanName=arn.rsplit("/", 1)[-1])
        for capacity in plan.get("ReservedCapacitySummaries", ()):
            if capacity.get("AvailabilityZone"):
                return str(capacity["AvailabilityZone"]), f"{arn} is there"
    training = dict.fromkeys(phase.train.job.instance_type for phase in settings.phases)
    others = [settings.tune.job.instance_type, *(phase.encode.job.instance_type for phase in settings.phases)]
    wanted = {name: name.removeprefix("ml.") for name in (*training, *others)}
    offered = zones_of(target.client("ec2"), wanted.values())
    told = [offered[wanted[name]] for name in training if wanted[name] in offered]
    if not told:
        return "", ""
    usable = set.intersection(*told)
    if not usable:
        raise OperatorError(f"no zone of {target.region} has {' and '.join(training)}: train on other hosts")
    best = max(sorted(usable), key=lambda zone: sum(zone in offered.get(wanted[name], ()) for name in others))
    return best, f"{' and '.join(training)} {'is' if len(training) == 1 else 'are'} offered there"


def zones_of(ec2: Any, types: Iterable[str]) -> dict[str, set[str]]:
    """Return the zones that offer EC2's instance types, by type; a type that no zone offers is not in it."""
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": sorted(set(types))}]
    )
    found: dict[str, set[str]] = {}
    for page in pages:
        for item in page["InstanceTypeOfferings"]:
            found.setdefault(item["InstanceType"], set()).add(item["Location"])
    return found
