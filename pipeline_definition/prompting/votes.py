"""A blind vote: pairs of pictures, which pair a voter sees next and on which side each stands, and the file of votes.

Reads the pairs' pictures and votes.jsonl, a line for each vote, and appends to that. A line is on the disk before the
voter sees the next pair, so that no kill loses one; a line that was cut off is counted and left out. The last vote of
one voter on one pair counts. Order and sides are a function of the seed, the voter and the pair: a voter goes on where
they were, whatever ended, and nobody can tell the models apart by their side.
"""

import hashlib
import io
import itertools
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image
from pydantic import TypeAdapter, ValidationError

from params.files import file_digest
from pipeline_definition.errors import OperatorError
from pipeline_definition.prompting.comparison import Contender
from pipeline_definition.prompting.drawing import draw_all

VOTES_FILE: Final = "votes.jsonl"

Choice = Literal["first", "second", "neither"]
Shown = Literal["left", "right", "neither"]


@dataclass(frozen=True)
class PicturePair:
    """Two models' pictures of one prompt and seed."""

    prompt: str
    kind: str
    seed: int
    models: tuple[str, str]
    """What people call the first and the second: endpoints, or variants of one."""
    drawn_by: tuple[str, str]
    """What each endpoint said that it draws with: a model package's ARN, or a digest of a folder."""
    settings: Mapping[str, Any]
    """What was asked beside prompt and seed."""
    pictures: tuple[str, str]
    """SHA-256 of the files."""

    @property
    def name(self) -> str:
        """The same pictures of the same prompt, the same name."""
        return hashlib.sha256("\n".join((self.prompt, *self.models, *self.pictures)).encode()).hexdigest()


@dataclass(frozen=True)
class Vote:
    voter: str
    pair: PicturePair
    choice: Choice
    shown_left: str
    """The model whose picture stood on the left."""
    at: str
    """When, in ISO 8601."""

    @property
    def share(self) -> float:
        """The first model's share of the vote: half where neither was better."""
        return {"first": 1.0, "second": 0.0, "neither": 0.5}[self.choice]


_VOTE: Final = TypeAdapter(Vote)


class VoteFile:
    """The votes of one question, in the order in which they came; several threads may cast them."""

    def __init__(self, path: Path) -> None:
        """Raises OperatorError where a name stands for two models, or two ways to draw."""
        self._path, self._lock, self._votes = path, threading.Lock(), dict[tuple[str, str], Vote]()
        content, self.unread = path.read_bytes() if path.is_file() else b"", 0
        self._cut_off = bool(content) and not content.endswith(b"\n")
        for line in filter(None, content.splitlines()):
            try:
                vote = _VOTE.validate_json(line)
                self._votes[vote.voter, vote.pair.name] = vote
            except ValidationError:
                self.unread += 1
        self.refuse_others()

    @property
    def votes(self) -> tuple[Vote, ...]:
        return tuple(self._votes.values())

    def has(self, voter: str, pair: PicturePair) -> bool:
        return (voter, pair.name) in self._votes

    def cast(self, voter: str, pair: PicturePair, choice: Choice, shown_left: str) -> None:
        """Keep a vote: once this returns, it is on the disk."""
        vote = Vote(voter, pair, choice, shown_left, datetime.now(UTC).isoformat(timespec="seconds"))
        line = json.dumps(asdict(vote), ensure_ascii=False).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self._path.open("ab") as file:
            # What a kill cut off stays a line of its own, which nobody can read.
            file.write(b"\n" + line if self._cut_off else line)
            file.flush()
            os.fsync(file.fileno())
            self._cut_off, self._votes[voter, pair.name] = False, vote

    def refuse_others(self, *pairs: PicturePair) -> None:
        """Raise OperatorError where votes on these pairs would be counted together with those on other pictures."""
        meant: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for pair in (*(vote.pair for vote in self.votes), *pairs):
            for name, model in zip(pair.models, pair.drawn_by, strict=True):
                if meant.setdefault(name, (model, pair.settings)) != (model, pair.settings):
                    why = f"holds votes on {name!r} as another model, or drawn with other settings"
                    raise OperatorError(f"{self._path}: {why}; keep these in another file with --votes")


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
