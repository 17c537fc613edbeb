"""How a probe ended: the lines of every host, and what SageMaker itself said of the jobs, each with its fix.

Reads what SageMaker answered; writes nothing. A refusal or a failure of a job is a line like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from params.probe_line import FAILED, GOOD, NOTE, ProbeLine
from pipeline_definition.checks.fixes import fix_of
from pipeline_definition.probing.jobs import ProbeJob
from pipeline_definition.runs.executions import ExecutionStep

# What SageMaker says of a job that it could not run, and the check to which that belongs; the first counts.
CHECKS: Final = (
    (r"ResourceLimitExceeded|service limit|quota", "quota"),
    (r"[Cc]apacity|Unable to provision|has not started", "capacity"),
    (r"AccessDenied|not authorized|NotAuthorized|PassRole", "permission"),
    (r"Throttl|TooManyRequests", "throttling"),
    (
        r"ValidationException|ValidationError|[Uu]nknown (?:[Aa]rgument|member|parameter)|Parameter validation",
        "request",
    ),
    (r"MaxRuntimeExceeded|ran longer", "time"),
    (r"FSx|[Ff]ile ?[Ss]ystem|mount", "file_system"),
    (r"ECR|[Ii]mage", "image"),
)
# The fix of a check, where what SageMaker says has none of its own (`checks.fixes`).
FIXES: Final[Mapping[str, str]] = {
    "quota": "ask Service Quotas for more, or take another type",
    "capacity": "try again later, take another type or zone, or reserve it by a training plan",
    "permission": "allow it: your own user what it starts, the jobs' role what they read and write",
    "throttling": "start again later: other programs of the account ask SageMaker as well",
    "request": "docs/operations.md, Newer than the published definition schema, says what to leave out of the set",
    "time": "see the last lines of its log: what hangs there is what to mend",
    "file_system": "its security group must admit the jobs on ports 988 and 1018-1023, and FsxPath must exist",
    "image": "`containers/build.sh --push` puts it there; the role must be allowed to pull it",
    "job": "see its log: `aws logs tail` on /aws/sagemaker, or the host's lines above",
}


@dataclass
class ProbeOutcome:
    """One job of the probe, once it has ended."""

    job: ProbeJob
    step: ExecutionStep
    """As SageMaker describes it."""
    hosts: dict[str, list[ProbeLine]] = field(default_factory=dict)
    """Lines by host; what SageMaker said has the host ``."""
    streams: set[str] = field(default_factory=set)
    """Log streams that could be read: one for each host."""

    def add(self, line: ProbeLine) -> None:
        """Add what is said of the job as a whole."""
        self.hosts.setdefault("", []).append(line)

    def judge(self) -> None:
        """Add how the job itself ended, and which of its hosts said nothing."""
        expected, named = sum(self.job.hosts.values()), [host for host in self.hosts if host]
        if self.step.status == "Succeeded":
            self.add(ProbeLine("job", "", GOOD, f"ran for {self.step.seconds or 0:.0f} s, its start included"))
        else:
            self.add(explained(self.step.failure_reason or f"the job is {self.step.status}"))
        if self.step.status == "Succeeded" and len(named) < expected:
            text = f"{len(named)} of {expected} hosts left a result"
            self.add(ProbeLine("results", "", FAILED, text, "see the logs of the others"))

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


def explained(reason: str) -> ProbeLine:
    """Return the line of a failed or refused job: which check its reason belongs to, and the fix."""
    text = " ".join(reason.split())[:600]
    check = next((check for pattern, check in CHECKS if re.search(pattern, text)), "job")
    return ProbeLine(check, "", FAILED, text, fix_of(text) or FIXES[check])


def interrupted(count: int) -> ProbeLine:
    """Return the line of a spot job that lost its hosts and went on."""
    text = f"SageMaker took the hosts back {count} times, and the job went on"
    return ProbeLine(
        "spot", "", NOTE, text, "nothing to do: checkpoints make that safe; without spot it does not happen"
    )


def throttled(count: int) -> ProbeLine:
    """Return the line of requests that had to be sent again."""
    text = f"{count} requests were throttled, and sent again"
    return ProbeLine("throttling", "", NOTE, text, "nothing to do: the account's programs ask more than is answered")
