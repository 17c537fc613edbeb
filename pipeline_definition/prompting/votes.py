"""What people chose between two pictures, and the file that keeps it: votes.jsonl, a line for each vote.

Reads and appends to that file. A line is on the disk before the voter sees the next pair, so that no kill loses one; a
line that was cut off is counted and left out. The last vote of one voter on one pair counts.
"""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from pipeline_definition.errors import OperatorError

VOTES_FILE: Final = "votes.jsonl"

Choice = Literal["first", "second", "neither"]


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
        """Those that count."""
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
