"""Append-only JSON lines that survive a kill at any moment.

Writes one JSON object a line; reads them back, leaving out a last line that was cut off.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from params.files import write_text


class Journal:
    """One file of JSON lines. Each line reaches the operating system before `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def append(self, entry: dict[str, Any]) -> None:
        # The line's end comes first: it also ends what a kill has cut off.
        line = "\n" + json.dumps(entry, separators=(",", ":"))
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line.encode("utf-8"))

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every whole entry, oldest first."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # empty, or cut off by a kill
                continue
            if isinstance(entry, dict):
                yield entry

    def rewrite(self, entries: Iterable[dict[str, Any]]) -> None:
        """Replace the whole journal at once."""
        text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
        with self._lock:
            write_text(self.path, text)
