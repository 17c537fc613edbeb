"""The training log: one line of `key=value` pairs for people and metric definitions, one JSON line for programs.

Writes to stdout and, on the head rank, to training_log.jsonl. A resumed training appends to the checkpoint's entries:
steps after the checkpoint are trained, and logged, again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from steps.training.trackers import Tracker

Entry = dict[str, float | int]


class TrainingLog:
    """Entries of one training, oldest first."""

    def __init__(self, path: Path | None, history: str = "", trackers: Sequence[Tracker] = ()) -> None:
        """Begin with a checkpoint's entries; without `path` write nothing. `trackers` receive every new entry."""
        self._path, self._trackers = path, trackers
        self.entries: list[Entry] = [json.loads(line) for line in history.splitlines()]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text, encoding="utf-8")

    @property
    def text(self) -> str:
        """The entries as JSON lines."""
        return "".join(f"{json.dumps(entry)}\n" for entry in self.entries)

    def append(self, entry: Entry) -> None:
        """Add an entry and print it."""
        self.entries.append(entry)
        if self._path is not None:
            print(to_line(entry), flush=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(entry)}\n")
        for tracker in self._trackers:
            tracker.note(entry)

    def close(self) -> None:
        """Let the trackers send what is still queued."""
        for tracker in self._trackers:
            tracker.close()

    def last(self, key: str) -> float | int | None:
        """Return the newest value of a key."""
        return next((entry[key] for entry in reversed(self.entries) if key in entry), None)


def to_line(entry: Entry) -> str:
    """Return `training_loss=0.1234 seen_samples=640 ...`, as `params.layout.metric_regex` finds it."""
    return " ".join(
        f"{key}={value if isinstance(value, int) else format(value, '.6g')}" for key, value in entry.items()
    )
