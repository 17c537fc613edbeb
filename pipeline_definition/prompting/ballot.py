"""Which pair a voter sees next, and on which side each picture stands: a function of the seed, the voter and the pair.

Reads the pairs' pictures and the votes; appends to the votes. So a voter goes on where they were, whatever ended, and
nobody can tell the models apart by their side.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from params.files import file_digest
from pipeline_definition.errors import OperatorError
from pipeline_definition.prompting.comparison import Contender
from pipeline_definition.prompting.drawing import draw_all
from pipeline_definition.prompting.votes import Choice, Pair, VoteFile

Side = Literal["left", "right"]
Shown = Literal["left", "right", "neither"]


@dataclass(frozen=True)
class Ballot:
    """All pairs that there are to vote on."""

    pairs: Mapping[str, Pair]
    """By name."""
    pictures: Mapping[str, Path]
    """By SHA-256."""
    file: VoteFile
    seed: int

    def queue(self, voter: str) -> list[str]:
        """Return the names of all pairs in this voter's order."""
        return sorted(self.pairs, key=lambda name: self._chance(voter, name))

    def waiting(self, voter: str) -> list[str]:
        """Return the names of those on which this voter has not voted yet."""
        return [name for name in self.queue(voter) if self.file.vote(voter, self.pairs[name]) is None]

    def sides(self, voter: str, name: str) -> dict[Side, int]:
        """Return which of a pair's two models stands on each side."""
        first = self._chance(voter, name)[-1] % 2
        return {"left": first, "right": 1 - first}

    def picture(self, voter: str, name: str, side: Side) -> bytes:
        """Return a PNG of the pixels alone: what a file says of itself would name its model."""
        file, digest = io.BytesIO(), self.pairs[name].pictures[self.sides(voter, name)[side]]
        with Image.open(self.pictures[digest]) as image:
            image.convert("RGB").save(file, "PNG")
        return file.getvalue()

    def vote(self, voter: str, name: str, chosen: Shown) -> None:
        """Keep a vote."""
        pair, sides = self.pairs[name], self.sides(voter, name)
        choices: tuple[Choice, Choice] = ("first", "second")
        choice: Choice = "neither" if chosen == "neither" else choices[sides[chosen]]
        self.file.cast(voter, pair, choice, shown_left=pair.models[sides["left"]])

    def _chance(self, voter: str, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}\n{voter}\n{name}".encode()).digest()


def draw_ballot(
    contenders: Sequence[Contender],
    prompts: Mapping[str, str],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    votes: Path,
    seed: int,
    report: Callable[[int], None],
) -> Ballot:
    """Let every contender draw each prompt, given with its kind, from every seed, as far as that was not done before.

    The pictures lie beside the file of votes. Raises OperatorError where that holds votes on other models, or where
    two contenders are the same one.
    """
    file, asked = VoteFile(votes), list(itertools.product(prompts, seeds))
    requests = [{**settings, "prompt": prompt, "seed": number} for prompt, number in asked]
    drawn = {one.name: draw_all(one.endpoint, requests, votes.parent, report=report) for one in contenders}
    digests = {name: [file_digest(path) for path in paths] for name, (_, paths) in drawn.items()}
    pairs = [
        Pair(prompt, prompts[prompt], number, (one, other), (drawn[one][0], drawn[other][0]), settings, pictures)
        for one, other in itertools.combinations(drawn, 2)
        for (prompt, number), pictures in zip(asked, zip(digests[one], digests[other], strict=True), strict=True)
    ]
    for pair in pairs:
        if pair.drawn_by[0] == pair.drawn_by[1]:
            raise OperatorError(f"{' and '.join(pair.models)} draw with the same model: there is nothing to vote on")
    file.refuse_others(*pairs)
    known = {
        digest: path for name, (_, paths) in drawn.items() for digest, path in zip(digests[name], paths, strict=True)
    }
    return Ballot({pair.name: pair for pair in pairs}, known, file, seed)
