"""Does the zone of the jobs' subnets have the instance types? A file system ties them to one zone.

Reads EC2 DescribeSubnets and DescribeInstanceTypeOfferings of one target; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from params.settings import Settings
from pipeline_definition.checks.findings import Finding, Problem, of_alternatives
from pipeline_definition.infrastructure.zone import zones_of
from pipeline_definition.jobs.planned import PlannedJob
from pipeline_definition.session import Target


class Offerings:
    """The zones of the jobs' subnets, and those that have a type; EC2 is asked once for each."""

    def __init__(self, settings: Settings, target: Target) -> None:
        self._subnets, self._target = settings.account.subnets, target
        self._zones: dict[str, set[str]] = {}

    @cached_property
    def _ec2(self) -> Any:
        return self._target.client("ec2")

    @cached_property
    def own(self) -> set[str]:
        """The zones of the subnets."""
        chosen = [{"Name": "subnet-id", "Values": list(self._subnets)}]
        return {subnet["AvailabilityZone"] for subnet in self._ec2.describe_subnets(Filters=chosen)["Subnets"]}

    def zones(self, instance_type: str) -> set[str]:
        """Return the region's zones that have a type; none where EC2 does not know it, or has it in none."""
        name = instance_type.removeprefix("ml.")
        if name not in self._zones:
            self._zones |= {name: set()} | zones_of(self._ec2, [name])
        return self._zones[name]

    def problem(self, job: PlannedJob) -> Problem | None:
        """Return what is in a job's way; a type that EC2 has in no zone of the region is not judged."""
        zones = self.zones(job.instance.name) if job.in_network else set()
        if not zones or not self.own or zones & self.own:
            return None
        problem = f"{job.instance.name} is not offered in {_words(self.own)}, where the subnets are"
        fix = f"use subnets in {_words(zones)} (`sd-pipeline infra deploy --set AvailabilityZone=...`), or another type"
        return job.type_parameter, problem, fix


def zone_findings(settings: Settings, jobs: list[PlannedJob], target: Target) -> Iterator[Finding]:
    """Check every job in the operator's network, and tell where a type is in some of the subnets' zones alone."""
    offerings = Offerings(settings, target)
    for job in jobs:
        yield from of_alternatives(job, offerings.problem)
        zones = offerings.zones(job.instance.name) if job.in_network else set()
        if zones & offerings.own and offerings.own - zones:
            problem = f"of the subnets' zones, {_words(zones & offerings.own)} has {job.instance.name}"
            yield Finding(job.type_parameter, problem, f"{job.step} starts there, or not at all", blocking=False)


def _words(zones: set[str]) -> str:
    return " or ".join(sorted(zones))
