"""The verdict of a probe: every line, then what failed with its fix, as text for people and as JSON for programs.

Reads outcomes; writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from params.probe_line import FAILED, GOOD, NOTE, ProbeLine
from pipeline_definition.probing.outcomes import ProbeOutcome

MARKS: Final = {GOOD: "✓", NOTE: "·", FAILED: "✗"}


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
