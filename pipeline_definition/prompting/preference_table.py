"""What people prefer, as a section of a page and as a table in the terminal. Reads votes; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline_definition.errors import UsageError
from pipeline_definition.pages.document import Fact, Section, Table
from pipeline_definition.pages.formats import DASH, count
from pipeline_definition.prompting.preference import Poll, polls
from pipeline_definition.prompting.votes import VoteFile

HEADERS = ("prompts", "model", "score", "interval", "preferred", "neither", "not preferred")
NUMERIC = frozenset({2, 3, 4, 5, 6})
LEAD = (
    "People chose between two pictures of one prompt and seed without knowing who drew which. The score is in Elo"
    " points around the models' mean: 100 points above another means preferred in 64 % of pairs."
)


def rows(found: Sequence[Poll]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each model, of all votes and of each kind of prompt."""
    for poll in found:
        for one in poll.preferences:
            counts = (count(number) for number in (one.wins, one.neither, one.losses))
            score, interval = f"{one.score.mean:+.0f}", one.score.interval("+.0f") or DASH
            yield (poll.kind or "all", one.model, score, interval, *counts)


def votes_section(path: Path) -> Section:
    """Return what the votes of a file say. Raises UsageError where it holds none."""
    file = VoteFile(path)
    if not file.votes:
        raise UsageError(f"{path}: holds no votes; `sd-pipeline compare --vote` collects them")
    found = polls(file.votes)
    everything = found[0]
    numbers = {"votes": everything.votes, "voters": everything.voters, "prompts": everything.prompts}
    facts = [Fact(label, count(value)) for label, value in numbers.items()]
    facts += [Fact("lines left out", count(file.unread), "they are no votes")] if file.unread else []
    drawn_by = dict(
        sorted(pair for vote in file.votes for pair in zip(vote.pair.models, vote.pair.drawn_by, strict=True))
    )
    tables = (
        Table(HEADERS, tuple(rows(found)), NUMERIC),
        Table(("model", "drawn by"), tuple(drawn_by.items()), wraps=True),
    )
    lead = f"{' '.join(_verdicts(found))} {LEAD}"
    return Section("votes", "What people prefer", lead, tuple(facts), tables=tables)


def _verdicts(found: Sequence[Poll]) -> Iterator[str]:
    yield found[0].verdict
    yield from (f"On {poll.kind}: {poll.verdict}" for poll in found[1:] if poll.lead.is_above_zero)
