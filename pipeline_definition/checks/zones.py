"""Does the zone of the jobs' subnets have the instance types? A file system ties them to one zone.

Reads EC2 DescribeSubnets and DescribeInstanceTypeOfferings of one target; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from params.settings import Settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.jobs.planned import PlannedJob
from pipeline_definition.session import Target


def zone_findings(settings: Settings, jobs: list[PlannedJob], target: Target) -> Iterator[Finding]:
    """Check every job in the operator's network; a type that EC2 has in no zone of the region is not judged."""
    inside = [job for job in jobs if job.in_network]
    if not inside:
        return
    ec2 = target.client("ec2")
    chosen = [{"Name": "subnet-id", "Values": list(settings.account.subnets)}]
    subnets = ec2.describe_subnets(Filters=chosen)["Subnets"]
    own = {subnet["AvailabilityZone"] for subnet in subnets}
    offered = _zones_of(ec2, sorted({job.instance.name.removeprefix("ml.") for job in inside}))
    for job in inside:
        zones = offered.get(job.instance.name.removeprefix("ml."), set())
        if zones and own and not zones & own:
            problem = f"{job.instance.name} is not offered in {' or '.join(sorted(own))}, where the subnets are"
            fix = f"use subnets in {' or '.join(sorted(zones))} (`sd-pipeline infra deploy --set AvailabilityZone=...`)"
            yield Finding(job.type_parameter, problem, f"{fix}, or another type")


def _zones_of(ec2: Any, types: list[str]) -> dict[str, set[str]]:
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": types}]
    )
    zones: dict[str, set[str]] = {}
    for page in pages:
        for item in page["InstanceTypeOfferings"]:
            zones.setdefault(item["InstanceType"], set()).add(item["Location"])
    return zones
