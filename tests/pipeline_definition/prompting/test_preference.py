"""Scores from votes whose truth is known, because they were thrown."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline_definition.prompting.preference import ELO, Poll, polls, votes_section
from pipeline_definition.prompting.votes import Choice, PicturePair, Vote, VoteFile


def vote(prompt: int, choice: Choice, models: tuple[str, str] = ("a", "b"), voter: str = "Ann", kind: str = "") -> Vote:
    pair = PicturePair(
        f"prompt {prompt}", kind, 0, models, ("1", "2"), {}, (f"{models[0]}{prompt}", f"{models[1]}{prompt}")
    )
    return Vote(voter, pair, choice, "a", "2026-11-01T00:00:00+00:00")


def thrown(
    strengths: dict[str, float], prompts: int, voters: int, spread: float, generator: np.random.Generator
) -> Poll:
    """Return the poll of voters who choose by the strengths, which differ from prompt to prompt by `spread`."""
    votes = []
    for prompt in range(prompts):
        own = {model: value + spread * generator.normal() / 2**0.5 for model, value in strengths.items()}
        for (one, other), voter in itertools.product(itertools.combinations(own, 2), range(voters)):
            first = generator.random() < 1 / (1 + math.exp(own[other] - own[one]))
            votes.append(vote(prompt, "first" if first else "second", (one, other), str(voter)))
    return polls(votes)[0]


@pytest.mark.parametrize("effect", [0.0, 2.0])
@pytest.mark.parametrize(("prompts", "voters", "spread"), [(8, 2, 1.5), (20, 1, 0.0)])
def test_intervals_hold_the_truth_in_95_of_100_polls(effect: float, prompts: int, voters: int, spread: float) -> None:
    generator, held = np.random.default_rng(prompts), 0
    chance = float(np.mean(1 / (1 + np.exp(-(effect + spread * generator.normal(size=200_000))))))
    truth = ELO * math.log(chance / (1 - chance)) / 2
    for _ in range(150):
        poll = thrown({"a": effect, "b": 0.0}, prompts, voters, spread, generator)
        score = next(one.score for one in poll.preferences if one.model == "a")
        assert score.low is not None
        assert score.high is not None
        held += score.low <= truth <= score.high
    # Of 150 polls at 0.95, 0.91 or more hold it in 98 of 100 cases.
    assert held / 150 >= 0.91


def test_four_models_are_ranked_as_they_are() -> None:
    strengths = {"d": 0.0, "b": 2.0, "c": 1.0, "a": 3.0}
    poll = thrown(strengths, 60, 2, 0.5, np.random.default_rng(0))
    assert [one.model for one in poll.preferences] == ["a", "b", "c", "d"]
    scores = [one.score.mean for one in poll.preferences]
    assert sum(scores) == pytest.approx(0, abs=0.5)
    assert scores[0] - scores[3] == pytest.approx(3 * ELO, rel=0.25)
    assert sum(one.votes[0] for one in poll.preferences) == 60 * 2 * 6


def test_a_model_that_always_wins_has_a_finite_score_and_is_decided_by_enough_votes_alone() -> None:
    few, many = (polls([vote(number, "first") for number in range(n)])[0] for n in (5, 20))
    assert few.preferences[0].score.mean < many.preferences[0].score.mean < math.inf
    assert many.verdict == "a is preferred to b in 98 % of pairs."
    assert many.more_votes == 0
    assert few.more_votes > 0


def test_that_many_more_votes_do_decide_in_most_cases() -> None:
    generator = np.random.default_rng(3)
    poll = thrown({"a": 0.8, "b": 0.0}, 12, 1, 0.0, generator)
    assert not poll.lead.is_above_zero
    assert f"some {poll.more_votes} more votes would show it" in poll.verdict
    seems = {"a": poll.lead.mean / ELO, "b": 0.0}
    decided = [thrown(seems, 12 + poll.more_votes, 1, 0.0, generator).lead.is_above_zero for _ in range(50)]
    assert 32 <= sum(decided) <= 48


def test_votes_for_neither_are_half_a_vote_for_each() -> None:
    poll = polls([vote(number, "neither") for number in range(8)])[0]
    assert [one.score.mean for one in poll.preferences] == [0, 0]
    assert [one.votes for one in poll.preferences] == [(0, 8, 0), (0, 8, 0)]
    assert poll.verdict.startswith("Not decided")


def test_few_prompts_have_no_interval_however_many_vote() -> None:
    poll = polls([vote(number, "first", voter=str(voter)) for number in range(3) for voter in range(50)])[0]
    assert poll.preferences[0].score.low is None
    assert poll.verdict == "Votes on 4 prompts at least are needed to tell a and b apart."


def cast(path: Path, votes: Sequence[Vote]) -> VoteFile:
    file = VoteFile(path)
    for one in votes:
        file.cast(one.voter, one.pair, one.choice, one.shown_left)
    return file


def test_kinds_of_prompts_are_told_apart(tmp_path: Path) -> None:
    votes = [vote(number, "first", kind="colour") for number in range(12)]
    votes += [vote(number, "second", kind="count") for number in range(20, 32)]
    everything, colour, counted = polls(votes)
    assert (everything.kind, colour.kind, counted.kind) == ("all", "colour", "count")
    assert (colour.preferences[0].model, counted.preferences[0].model) == ("a", "b")
    section = votes_section(cast(tmp_path / "votes.jsonl", votes))
    assert [fact.value for fact in section.facts] == ["24", "1", "24"]
    assert "Colour: a is preferred to b" in section.lead
    assert "Count: b is preferred to a" in section.lead
    assert [row[:2] for row in section.tables[0].rows] == [
        *(("all", "a"), ("all", "b"), ("colour", "a"), ("colour", "b"), ("count", "b"), ("count", "a"))
    ]
    assert section.tables[1].rows == (("a", "1"), ("b", "2"))
