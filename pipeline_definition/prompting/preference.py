"""What votes say: a Bradley-Terry score for each model, overall and by kind of prompt, and how many more would decide.

Reads votes; writes nothing. The chance that one model's picture is preferred is the logistic function of the difference
of their scores (Bradley and Terry 1952); scores are in Elo points, 0 in the mean of all models. A vote for neither is
half a vote for each. Votes on pictures of one prompt are alike, so intervals are Student's t over the prompts, or what
chance alone makes of so many votes where that is wider: where everybody agrees, prompts do not differ.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline_definition.errors import OperatorError
from pipeline_definition.pages.document import Fact, Section, Table
from pipeline_definition.pages.formats import DASH, count
from pipeline_definition.prompting.intervals import CONFIDENCE, FEWEST, Estimate
from pipeline_definition.prompting.votes import Vote, VoteFile

ELO: Final = 400 / math.log(10)
NEWTON_STEPS: Final = 12
NORMAL: Final = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
# That many more votes show a difference as large as the one that was found with a chance of 80 %.
EFFORT: Final = NORMAL + float(stats.norm.ppf(0.8))
# In Elo points: models that are nearer to each other than this are alike to everybody.
LEAST_GAP: Final = 3.0
Floats = npt.NDArray[np.float64]
VOTE_HEADERS: Final = ("prompts", "model", "score", "interval", "preferred", "neither", "not preferred")
LEAD: Final = (
    "People chose between two pictures of one prompt and seed without knowing who drew which. The score is in Elo"
    " points around the models' mean: 100 points above another means preferred in 64 % of pairs."
)


@dataclass(frozen=True)
class ModelStanding:
    model: str
    score: Estimate
    votes: tuple[int, int, int]
    """For it, for neither, against it."""


@dataclass(frozen=True)
class Poll:
    """What the votes on one kind of prompt say."""

    kind: str
    preferences: tuple[ModelStanding, ...]
    """Most preferred first."""
    lead: Estimate
    """The first model's score above the second's."""
    more_votes: int
    """How many more would decide between these two, if they are as far apart as it seems; 0: it is decided."""

    @property
    def verdict(self) -> str:
        """Who is preferred, or what it would take to know, in a sentence."""
        first, second = (preference.model for preference in self.preferences[:2])
        found = f"{first} is preferred to {second} in {100 / (1 + math.exp(-self.lead.mean / ELO)):.0f} % of pairs"
        if self.lead.is_above_zero:
            return f"{found}."
        if self.lead.low is None:
            return f"Votes on {FEWEST} prompts at least are needed to tell {first} and {second} apart."
        return f"Not decided: {found} so far; if that is so, some {count(self.more_votes)} more votes would show it."


def polls(votes: Sequence[Vote]) -> tuple[Poll, ...]:
    """Return what all votes say, if there are any, then those on each kind of prompt where there are several."""
    kinds = sorted({vote.pair.kind for vote in votes})
    told = {"all": votes} if votes else {}
    if len(kinds) > 1:
        told |= {kind or "other": [vote for vote in votes if vote.pair.kind == kind] for kind in kinds}
    return tuple(_poll(*one) for one in told.items())


def _poll(kind: str, votes: Sequence[Vote]) -> Poll:
    models = sorted({model for vote in votes for model in vote.pair.models})
    # One vote for neither between any two, which nobody cast: a model that always won would have no finite score.
    cast = [(*vote.pair.models, vote.share) for vote in votes]
    cast += [(*both, 0.5) for both in itertools.combinations(models, 2)]
    ends = {model: np.eye(len(models))[place] for place, model in enumerate(models)}
    sides, shares = np.array([ends[one] - ends[other] for one, other, _ in cast]), np.array([row[2] for row in cast])
    scores = np.zeros(len(models))
    for _ in range(NEWTON_STEPS):
        chances = 1 / (1 + np.exp(-sides @ scores))
        inverse = np.linalg.pinv(sides.T @ (sides * (chances * (1 - chances))[:, None]))
        scores = scores + inverse @ sides.T @ (shares - chances)
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(vote.pair.prompt for vote in votes))}
    left = np.zeros((len(prompts), len(models)))
    of_votes = (sides * (shares - chances)[:, None])[: len(votes)]
    np.add.at(left, [prompts[vote.pair.prompt] for vote in votes], of_votes)
    freedom = max(1, len(prompts) - 1)
    by_prompt = inverse @ left.T @ left @ inverse * len(prompts) / freedom
    quantiles = {NORMAL: inverse, float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)): by_prompt}

    def estimate(contrast: Floats) -> Estimate:
        value = ELO * float(contrast @ scores)
        if len(prompts) < FEWEST:
            return Estimate(round(value, 1), None, None)
        reach = ELO * max(at * math.sqrt(contrast @ one @ contrast) for at, one in quantiles.items())
        return Estimate(*(round(bound, 1) for bound in (value, value - reach, value + reach)))

    ranked = sorted(models, key=lambda model: -ends[model] @ scores)
    preferences = []
    for one in ranked:
        own = [abs(vote.share - vote.pair.models.index(one)) for vote in votes if one in vote.pair.models]
        counts = (own.count(1), own.count(0.5), own.count(0))
        preferences.append(ModelStanding(one, estimate(ends[one] - 1 / len(models)), counts))
    contrast = ends[ranked[0]] - ends[ranked[1]]
    lead = estimate(contrast)
    error = ELO * math.sqrt(max(contrast @ one @ contrast for one in quantiles.values()))
    missing = ((EFFORT * error / max(lead.mean, LEAST_GAP)) ** 2 - 1) * len(votes)
    return Poll(kind, tuple(preferences), lead, 0 if lead.is_above_zero else max(1, math.ceil(missing)))


def preference_of(votes: Sequence[Vote], model: str, other: str) -> tuple[bool, str]:
    """Return whether people are shown to prefer one model to another, and the verdict in words.

    Raises OperatorError where nobody voted on a pair of these two.
    """
    of_both = [vote for vote in votes if {*vote.pair.models} == {model, other}]
    if not of_both:
        named = ", ".join(sorted({name for vote in votes for name in vote.pair.models})) or "nothing"
        raise OperatorError(f"no votes on {model} beside {other}: there are votes on {named}")
    poll = polls(of_both)[0]
    return poll.lead.is_above_zero and poll.preferences[0].model == model, poll.verdict


def poll_rows(found: Sequence[Poll]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each model, of all votes and of each kind of prompt."""
    for poll, one in ((of, one) for of in found for one in of.preferences):
        score = (f"{one.score.mean:+.0f}", one.score.interval("+.0f") or DASH)
        yield (poll.kind, one.model, *score, *map(count, one.votes))


def votes_section(file: VoteFile) -> Section:
    votes, found = file.votes, polls(file.votes)
    verdicts = [f"{poll.kind.capitalize()}: {poll.verdict}" for poll in found if poll.lead.is_above_zero]
    numbers = {
        "votes": len(votes),
        "voters": len({vote.voter for vote in votes}),
        "prompts": len({vote.pair.prompt for vote in votes}),
        "lines that are no votes": file.unread,
    }
    facts = tuple(Fact(label, count(value)) for label, value in numbers.items() if value)
    drawn_by = {model: by for vote in votes for model, by in zip(vote.pair.models, vote.pair.drawn_by, strict=True)}
    tables = (
        Table(VOTE_HEADERS, tuple(poll_rows(found)), frozenset(range(2, len(VOTE_HEADERS)))),
        Table(("model", "drawn by"), tuple(sorted(drawn_by.items())), wraps=True),
    )
    lead = " ".join((*(verdicts or [poll.verdict for poll in found[:1]]), LEAD))
    return Section("votes", "What people prefer", lead, facts, tables=tables)
