"""Which pair a voter sees next, and on which side each picture stands: a function of the seed, the voter and the pair.

Reads the pairs' pictures and the votes; appends to the votes. So a voter goes on where they were, whatever ended, and
nobody can tell the models apart by their side.
"""

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
from pipeline_definition.prompting.votes import Choice, PicturePair, VoteFile

Shown = Literal["left", "right", "neither"]


@dataclass(frozen=True)
class Ballot:
    pairs: Mapping[str, PicturePair]
    """By name."""
    pictures: Mapping[str, Path]
    """By SHA-256."""
    file: VoteFile
    seed: int

    def waiting(self, voter: str) -> list[str]:
        """Return the names of the pairs on which this voter has not voted yet, in this voter's order."""
        names = (name for name, pair in self.pairs.items() if not self.file.has(voter, pair))
        return sorted(names, key=lambda name: self._chance(voter, name))

    def picture(self, voter: str, name: str, side: Literal["left", "right"]) -> bytes:
        """Return a PNG of the pixels alone: what a file says of itself would name its model."""
        file, digest = io.BytesIO(), self.pairs[name].pictures[self._first(voter, name) ^ (side == "right")]
        with Image.open(self.pictures[digest]) as image:
            image.convert("RGB").save(file, "PNG")
        return file.getvalue()

    def vote(self, voter: str, name: str, chosen: Shown) -> None:
        pair, left = self.pairs[name], self._first(voter, name)
        model: Choice = "second" if left ^ (chosen == "right") else "first"
        self.file.cast(voter, pair, "neither" if chosen == "neither" else model, pair.models[left])

    def _first(self, voter: str, name: str) -> int:
        """Return which of a pair's two models stands on the left: 0 or 1."""
        return self._chance(voter, name)[-1] % 2

    def _chance(self, voter: str, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}\n{voter}\n{name}".encode()).digest()


def draw_ballot(
    contenders: Sequence[Contender],
    prompts: Mapping[str, str],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    votes: Path,
    report: Callable[[int], None] = lambda count: None,
) -> Ballot:
    """Let every contender draw each prompt, given with its kind, from every seed, as far as that was not done before.

    The pictures lie beside the file of votes. Raises OperatorError where that holds votes on other models, or where
    two contenders are the same one.
    """
    file, asked = VoteFile(votes), list(itertools.product(prompts, seeds))
    requests = [{**settings, "prompt": prompt, "seed": seed} for prompt, seed in asked]
    pairs, models, pictures, known = [], dict[str, str](), dict[str, list[str]](), dict[str, Path]()
    for name, endpoint in ((one.name, one.endpoint) for one in contenders):
        models[name], paths = draw_all(endpoint, requests, votes.parent, report=report)
        pictures[name] = list(map(file_digest, paths))
        known |= zip(pictures[name], paths, strict=True)
    for one, other in itertools.combinations(models, 2):
        if models[one] == models[other]:
            raise OperatorError(f"{one} and {other} draw with the same model: there is nothing to vote on")
        for (prompt, seed), *both in zip(asked, pictures[one], pictures[other], strict=True):
            drawn_by, kind = (models[one], models[other]), prompts[prompt]
            pairs.append(PicturePair(prompt, kind, seed, (one, other), drawn_by, settings, (both[0], both[1])))
    file.refuse_others(*pairs)
    return Ballot({pair.name: pair for pair in pairs}, known, file, seeds[0])
