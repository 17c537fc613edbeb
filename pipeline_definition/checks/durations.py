"""Will each job end before its time limit? The forecast's hours against what the definition allows.

Reads a parameter set, a definition, the parameters of one start and the price file; writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from params.settings import Settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.planned import PlannedJob, all_steps, as_integer

HOUR_S: Final = 3600
# What is suggested, over the forecast.
MARGIN: Final = 1.5
KEYS: Final = {"Tune": "tune.job", "EncodePhase2": "phase_2.encode", "TrainPhase2": "phase_2.train"}


def duration_findings(
    settings: Settings, definition: Mapping[str, Any], changes: Mapping[str, str], jobs: list[PlannedJob]
) -> Iterator[Finding]:
    """Check the jobs that the forecast knows; a run that has no forecast is not judged here.

    A training that is cut off goes on from its checkpoint at the next start: it is reported, not refused.
    """
    if settings.local is not None:
        return
    try:
        hours = {line.step: line.hours for line in forecast(settings, definition, changes).lines}
    except CostError:
        return
    for job in jobs:
        needed_h = hours.get(job.step, 0.0) / _turns(definition, job)
        limit_h = job.max_runtime_s / HOUR_S
        if job.program == "stream" or not 0 < limit_h < needed_h:
            continue
        key = f"{KEYS.get(job.step, f'{job.step.lower()}.job')}.max_runtime_s"
        problem = f"{job.step} is forecast to take {needed_h:,.1f} h, and is stopped after {limit_h:,.1f} h"
        wanted_s = math.ceil(needed_h * MARGIN) * HOUR_S
        yield Finding(
            key, problem, f"set it to {wanted_s}, or use more or faster hosts", blocking=job.kind != "training"
        )


def _turns(definition: Mapping[str, Any], job: PlannedJob) -> int:
    """Return how many jobs of a step follow each other: a tuner's trials, some of them at once."""
    step = next(step for step in all_steps(definition["Steps"]) if step["Name"] == job.step)
    if step["Type"] != "Tuning":
        return 1
    limits = step["Arguments"]["HyperParameterTuningJobConfig"]["ResourceLimits"]
    return max(1, math.ceil(as_integer(limits.get("MaxNumberOfTrainingJobs")) / max(1, job.parallel)))
