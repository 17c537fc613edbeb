"""What preflight finds, and the fix for what AWS says: a refusal of its API, or why a job or an endpoint failed.

Reads texts, and fixes.yaml; writes nothing. AWS names the fault, in its own words, and seldom what to do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from params.tables import table_beside

_KNOWN: Final = table_beside(__file__, "fixes")
WITHOUT: Final[Mapping[str, str]] = _KNOWN["without"]
OF_JOBS: Final[Sequence[Mapping[str, str]]] = _KNOWN["jobs"]
"""What SageMaker says of a job: the words, the probe's check to which they belong, and the fix."""
_UNKNOWN_MEMBER: Final = re.compile(r"[Uu]nknown (?:Argument )?member '(\w+)'")


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
        return f"{self.parameter}: {self.problem}; {self.fix}"


def fix_of(text: str) -> str:
    """Return the fix for what AWS says; nothing where it is not known, or stands there already."""
    if re.search(r"\bfix: ", text, re.IGNORECASE):
        return ""
    if member := _UNKNOWN_MEMBER.search(text):
        return WITHOUT.get(member[1], f"leave out the setting that {member[1]} comes from, or update the SDK")
    for fault in _KNOWN["faults"]:
        if match := re.search(fault["words"], text):
            return str(fault["fix"]).format(next(filter(None, match.groups()), ""))
    return ""


def with_fix(text: str) -> str:
    """Return a fault with its fix in its first line, where the fix is known."""
    first, newline, rest = text.partition("\n")
    fix = fix_of(text)
    return f"{first.rstrip('. ')}. Fix: {fix}{newline}{rest}" if fix else text
