"""How a probe ended: the lines of every host, what SageMaker itself said of the jobs, and the verdict over all of them.

Reads what SageMaker answered; writes nothing. A refusal or a failure of a job is a line like any other, with its fix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from params.programs.probe import FAILED, GOOD, NOTE, ProbeLine
from pipeline_definition.checks.findings import OF_JOBS, fix_of
from pipeline_definition.probing.jobs import ProbeJob
from pipeline_definition.runs.executions import ExecutionStep

MARKS: Final = {GOOD: "✓", NOTE: "·", FAILED: "✗"}


@dataclass
class ProbeOutcome:
    """One job of the probe, once it has ended."""

    job: ProbeJob
    step: ExecutionStep
    hosts: dict[str, list[ProbeLine]] = field(default_factory=dict)
    """Lines by host; what SageMaker said has the host ``."""
    streams: set[str] = field(default_factory=set)
    """Log streams that could be read: one for each host."""

    def add(self, check: str, status: str, text: str, fix: str = "") -> None:
        """Add what is said of the job as a whole."""
        self.hosts.setdefault("", []).append(ProbeLine(check, "", status, text, fix))

    def explain(self, reason: str) -> None:
        """Add why a job failed or was refused: the check that its reason belongs to, and the fix."""
        text = " ".join(reason.split())[:600]
        known = next(known for known in OF_JOBS if re.search(known["words"], text))
        self.add(known["check"], FAILED, text, fix_of(text) or known["fix"])

    def judge(self) -> None:
        """Add how the job itself ended, and which of its hosts said nothing."""
        if self.step.status != "Succeeded":
            self.explain(self.step.failure_reason or f"the job is {self.step.status}")
            return
        self.add("job", GOOD, f"ran for {self.step.seconds or 0:.0f} s, its start included")
        expected, named = sum(self.job.hosts.values()), len([host for host in self.hosts if host])
        if named < expected:
            self.add("results", FAILED, f"{named} of {expected} hosts left a result", "see the logs of the others")

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome, ready for JSON."""
        return {
            "name": self.job.name,
            "steps": list(self.job.steps),
            "kind": self.job.kind,
            "instances": dict(self.job.hosts),
            "status": self.step.status,
            "seconds": self.step.seconds,
            # By name, whichever host answered first; what SageMaker itself says comes last.
            "hosts": {
                host or "sagemaker": [asdict(line) for line in self.hosts[host]]
                for host in sorted(self.hosts, key=lambda name: (not name, name))
            },
        }


def verdict_lines(outcomes: Sequence[ProbeOutcome]) -> Iterator[str]:
    """Yield the lines of every job and host, then the verdict."""
    for outcome in outcomes:
        yield f"\n{outcome.job.label} ({outcome.job.what})"
        for host, lines in sorted(outcome.hosts.items()):
            for line in lines:
                yield f"  {host or 'SageMaker':10} {MARKS[line.status]} {line.check:12}{_text(line)}"
    counts = Counter(line.status for _, line in _all_lines(outcomes))
    yield f"\n{counts.total()} checks: {counts[GOOD]} good, {counts[NOTE]} to know, {counts[FAILED]} failed"
    for status, heading in ((NOTE, "to know"), (FAILED, "failed")):
        for places, line in told_once(outcomes, status):
            yield f"{heading}: {line.check} ({', '.join(places)}): {_text(line)}"
            yield f"  fix: {line.fix}"
    if not counts[FAILED]:
        yield "verdict: what was probed works"


def verdict_dict(outcomes: Sequence[ProbeOutcome], kept: Sequence[str]) -> dict[str, Any]:
    """Return the result for programs; `kept` is what could not be removed."""
    failed = told_once(outcomes, FAILED)
    return {
        "failed": len(failed) + len(kept),
        "failures": [{**asdict(line), "where": places} for places, line in failed],
        "left_behind": list(kept),
        "jobs": [outcome.as_dict() for outcome in outcomes],
    }


def told_once(outcomes: Sequence[ProbeOutcome], status: str) -> list[tuple[list[str], ProbeLine]]:
    """Return (places, line) of every line of a status; one fault in several places is told once."""
    told: dict[tuple[str, str, str], tuple[list[str], ProbeLine]] = {}
    for place, line in _all_lines(outcomes):
        if line.status == status:
            told.setdefault((line.check, line.subject, line.fix), ([], line))[0].append(place)
    return list(told.values())


def _all_lines(outcomes: Sequence[ProbeOutcome]) -> Iterator[tuple[str, ProbeLine]]:
    for outcome in outcomes:
        for host, lines in outcome.hosts.items():
            yield from ((f"{outcome.job.label} {host}".rstrip(), line) for line in lines)


def _text(line: ProbeLine) -> str:
    return f"{line.subject}: {line.text}" if line.subject else line.text
