"""What votes say: a Bradley-Terry score for each model, overall and by kind of prompt, and how many more would decide.

Reads votes; writes nothing. The chance that one model's picture is preferred is the logistic function of the difference
of their scores (Bradley and Terry 1952); scores are in Elo points, 0 in the mean of all models. A vote for neither is
half a vote for each. Votes on pictures of one prompt are alike, so intervals are Student's t over the prompts, or what
chance alone makes of so many votes where that is wider: where everybody agrees, prompts do not differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline_definition.prompting.intervals import CONFIDENCE, FEWEST, Estimate
from pipeline_definition.prompting.votes import Vote

ELO: Final = 400 / math.log(10)
# A vote for neither between any two models, which nobody cast: without it a model that always won has no finite score.
PRIOR: Final = 1.0
NEWTON_STEPS: Final = 50
TOLERANCE: Final = 1e-9
# The chance with which that many votes would show a difference as large as the one that was found.
POWER: Final = 0.8
# In natural units: models that are nearer to each other than this are alike to everybody.
LEAST_GAP: Final = 0.02
NORMAL: Final = float(stats.norm.ppf((1 + CONFIDENCE) / 2))

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Preference:
    """How one model did."""

    model: str
    score: Estimate
    wins: int
    losses: int
    neither: int


@dataclass(frozen=True)
class Poll:
    """What the votes on one kind of prompt say."""

    kind: str
    """Empty: of all kinds together."""
    preferences: tuple[Preference, ...]
    """Most preferred first."""
    votes: int
    voters: int
    prompts: int
    lead: Estimate
    """The first model's score above the second's."""
    more_votes: int
    """How many more would decide between these two, if they are as far apart as it seems; 0: it is decided."""

    @property
    def verdict(self) -> str:
        """Return who is preferred, or what it would take to know, in a sentence."""
        first, second = (preference.model for preference in self.preferences[:2])
        chance = 100 / (1 + math.exp(-self.lead.mean / ELO))
        if self.lead.is_above_zero:
            return f"{first} is preferred to {second}: in {chance:.0f} % of pairs."
        if self.lead.low is None:
            return f"Votes on {FEWEST} prompts at least are needed to tell {first} and {second} apart."
        seems = f"in {chance:.0f} % of pairs {first} is preferred; if that is so, "
        return (
            f"{first} and {second} cannot be told apart yet: {seems}some {self.more_votes:,} more votes would show it."
        )


def polls(votes: Sequence[Vote]) -> tuple[Poll, ...]:
    """Return what all votes say, then what those on each kind of prompt do where there are several."""
    kinds = sorted({vote.pair.kind for vote in votes})
    of_kinds = [[vote for vote in votes if vote.pair.kind == kind] for kind in kinds] if len(kinds) > 1 else []
    named = zip(kinds, of_kinds, strict=False)
    return tuple(
        _poll(kind, own) for kind, own in (("", votes), *((kind or "other", own) for kind, own in named)) if own
    )


def _poll(kind: str, votes: Sequence[Vote]) -> Poll:
    models = sorted({model for vote in votes for model in vote.pair.models})
    asked = list(dict.fromkeys(vote.pair.prompt for vote in votes))
    places = np.array([[models.index(model) for model in vote.pair.models] for vote in votes])
    shares, prompts = (
        np.array([vote.share for vote in votes]),
        np.array([asked.index(one.pair.prompt) for one in votes]),
    )
    scores, covariances = _fit(len(models), places, shares, prompts)
    order = np.argsort(-scores, kind="stable")
    against_mean = np.eye(len(models)) - 1 / len(models)
    preferences = []
    for model in order:
        won = np.where(places[:, 0] == model, shares, 1 - shares)[(places == model).any(axis=1)]
        counted = (int((won == share).sum()) for share in (1, 0, 0.5))
        score = _estimate(against_mean[model], scores, covariances, len(asked))
        preferences.append(Preference(models[model], score, *counted))
    contrast = np.eye(len(models))[order[0]] - np.eye(len(models))[order[1]]
    lead, missing = _estimate(contrast, scores, covariances, len(asked)), 0
    if not lead.is_above_zero:
        error = math.sqrt(max(float(contrast @ one @ contrast) for one in covariances))
        needed = ((NORMAL + float(stats.norm.ppf(POWER))) * error / max(float(contrast @ scores), LEAST_GAP)) ** 2
        missing = max(1, math.ceil((needed - 1) * len(votes)))
    voters = len({vote.voter for vote in votes})
    return Poll(kind, tuple(preferences), len(votes), voters, len(asked), lead, missing)


def _fit(
    models: int, places: npt.NDArray[np.int_], shares: Floats, prompts: npt.NDArray[np.int_]
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Return the scores of largest likelihood, in natural units, and their covariance by votes and by prompts."""
    all_pairs = np.array(list(itertools.combinations(range(models), 2)))
    ends = np.eye(models)
    sides = ends[np.vstack((places, all_pairs))[:, 0]] - ends[np.vstack((places, all_pairs))[:, 1]]
    results = np.concatenate((shares, np.full(len(all_pairs), 0.5)))
    weights = np.concatenate((np.ones(len(shares)), np.full(len(all_pairs), PRIOR)))
    scores = np.zeros(models)
    for _ in range(NEWTON_STEPS):
        chances = 1 / (1 + np.exp(-sides @ scores))
        inverse = np.linalg.pinv(sides.T @ (sides * (weights * chances * (1 - chances))[:, None]))
        step = inverse @ sides.T @ (weights * (results - chances))
        scores = scores + step
        if np.abs(step).max() < TOLERANCE:
            break
    left = sides[: len(shares)] * (shares - chances[: len(shares)])[:, None]
    groups = int(prompts.max()) + 1
    by_prompt = np.zeros((groups, models))
    np.add.at(by_prompt, prompts, left)
    robust = inverse @ by_prompt.T @ by_prompt @ inverse * groups / max(1, groups - 1)
    return scores, (inverse, robust)


def _estimate(contrast: Floats, scores: Floats, covariances: tuple[Floats, Floats], prompts: int) -> Estimate:
    """Return a contrast of the scores in Elo points."""
    value = float(contrast @ scores)
    if prompts < FEWEST:
        return Estimate(round(ELO * value, 1), None, None)
    quantiles = (NORMAL, float(stats.t.ppf((1 + CONFIDENCE) / 2, prompts - 1)))
    reach = max(at * math.sqrt(contrast @ one @ contrast) for at, one in zip(quantiles, covariances, strict=True))
    return Estimate(*(round(ELO * bound, 1) for bound in (value, value - reach, value + reach)))
