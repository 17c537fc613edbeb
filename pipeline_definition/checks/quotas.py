"""Do the account's quotas hold the jobs' hosts, and their time?

Reads Service Quotas of one target; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from pipeline_definition.checks.findings import Finding, Problem, of_alternatives
from pipeline_definition.jobs.planned import PlannedJob
from pipeline_definition.session import Target

QUOTA_OF_KIND = {"training": "training job", "processing": "processing job", "endpoint": "endpoint"}
LONGEST_TRAINING = "Longest run time for a training job"


class Quotas:
    """SageMaker's quotas by their names in Service Quotas, asked for once."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @cached_property
    def _values(self) -> dict[str, float]:
        pages = self._target.client("service-quotas").get_paginator("list_service_quotas")
        return {q["QuotaName"]: q["Value"] for p in pages.paginate(ServiceCode="sagemaker") for q in p["Quotas"]}

    def problem(self, job: PlannedJob) -> Problem | None:
        """Return what is in the way of a job's hosts; reserved hosts have a quota of the plan's own."""
        spot = "spot " if job.spot else ""
        name, needed = f"{job.instance.name} for {spot}{QUOTA_OF_KIND[job.kind]} usage", job.count * job.parallel
        if job.training_plan or needed <= self._values.get(name, needed):
            return None
        problem = f"{job.step} needs {needed} and the quota '{name}' is {self._values[name]:g}"
        return job.count_parameter, problem, "ask Service Quotas for more, or use fewer hosts or another type"

    def findings(self, jobs: list[PlannedJob]) -> Iterator[Finding]:
        """Check every job's hosts, and how long a training may run."""
        longest_s = self._values.get(LONGEST_TRAINING)
        for job in jobs:
            yield from of_alternatives(job, self.problem)
            if job.kind == "training" and longest_s is not None and job.max_runtime_s > longest_s:
                yield Finding(
                    "train.job.max_runtime_s",
                    f"{job.step} may run for {job.max_runtime_s} s and the quota is {longest_s:g} s",
                    "ask Service Quotas for more, or lower it: checkpoints let the next start go on",
                )
