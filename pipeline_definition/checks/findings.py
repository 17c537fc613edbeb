"""What preflight finds: a parameter, what is wrong with it, and the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline_definition.jobs.planned import PlannedJob

Problem = tuple[str, str, str]
"""Parameter, what is wrong, and the fix."""


@dataclass(frozen=True)
class Finding:
    """One reason not to start."""

    parameter: str
    """Name of the pipeline parameter, or key of the parameter set (`tune.micro_batch_size`)."""
    problem: str
    fix: str
    blocking: bool = True
    """False: it could not be checked, or is worth knowing; the run may start all the same."""

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"{self.parameter}: {self.problem}; {self.fix}"


def of_alternatives(job: PlannedJob, problem_of: Callable[[PlannedJob], Problem | None]) -> Iterator[Finding]:
    """Yield what is in a job's way: it blocks where it is in the way of every host that the job may get."""
    problems = [problem_of(one) for one in job.alternatives()]
    for problem in filter(None, problems):
        yield Finding(*problem, blocking=all(problems))
