"""Which of the preferred hosts a start takes, where the API takes one type only: the first that zone and quota have.

Reads a parameter set, planned jobs, and EC2 and Service Quotas of one target; writes nothing. The definition stays as
it is: what is chosen are the pipeline parameters of one start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from params.settings import Settings
from pipeline_definition.checks.quotas import Quotas
from pipeline_definition.checks.zones import Offerings
from pipeline_definition.jobs.instances import instance
from pipeline_definition.jobs.planned import PlannedJob
from pipeline_definition.session import Target

# Their hosts are those of the training that they belong to.
FOLLOWERS = ("throughput", "stream")


def chosen_hosts(
    settings: Settings, jobs: list[PlannedJob], given: Mapping[str, str], target: Target
) -> tuple[dict[str, str], list[str]]:
    """Return the parameters to change, and a line for each job whose first type is passed over.

    What the operator gives stays. Where nothing on a list can be had, preflight says so of the first.
    """
    changes: dict[str, str] = {}
    lines: list[str] = []
    offerings, quotas = Offerings(settings, target), Quotas(target)
    for job in jobs:
        reasons: list[str] = []
        for option in _options(settings, job, given):
            try:
                problem = offerings.problem(option) or quotas.problem(option)
            except (ClientError, BotoCoreError) as error:
                lines.append(f"{job.step}: {option.instance.name}, for what there is could not be asked: {error}")
                break
            if problem is None:
                if reasons:
                    changes |= {job.type_parameter: option.instance.name, job.count_parameter: str(option.count)}
                    lines.append(f"{job.step}: {option.count} x {option.instance.name}, for {'; '.join(reasons)}")
                break
            reasons.append(problem[1])
    return changes, lines


def _options(settings: Settings, job: PlannedJob, given: Mapping[str, str]) -> Iterator[PlannedJob]:
    wished = settings.job_of(job.step)
    decided = bool(job.fallbacks or job.training_plan) or job.type_parameter in given or job.program in FOLLOWERS
    if wished is None or not wished.instance_preferences or decided:
        return
    yield job
    for other in wished.instance_preferences:
        yield replace(job, instance=instance(other.instance_type), count=other.instance_count or job.count)
