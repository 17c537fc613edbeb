"""Progress of a long job: a line for people and for the live table, at most once a second.

Writes `PROGRESS {"step": ..., "done": ..., "total": ..., "unit": ..., "per_s": ..., "remaining_s": ...}` to stdout.
"""

import json
import time
from collections.abc import Mapping

from params.layout import PROGRESS_PREFIX


class Progress:
    """Counts what is done; prints at most once in `every_s` seconds, and at the end."""

    def __init__(self, step: str, total: int, unit: str, done: int = 0, every_s: float = 1.0) -> None:
        self._step, self._total, self._unit, self._every_s = step, total, unit, every_s
        self._done = self._started_at = done
        self._start_s = time.monotonic()
        self._printed_s = float("-inf")
        self.troubles: Mapping[str, str] = {}
        """Of hosts, by name: they stand in every line."""

    def advance(self, count: int = 1) -> None:
        self.set(self._done + count)

    def set(self, done: int, **figures: float) -> None:
        """Set how many are done, and further figures of the line, such as iterations_per_s."""
        self._done, now_s = done, time.monotonic()
        if now_s - self._printed_s < self._every_s and done < self._total:
            return
        self._printed_s, elapsed_s = now_s, now_s - self._start_s
        # What was done before this process began is none of its speed.
        per_s = (done - self._started_at) / elapsed_s if elapsed_s > 0 else 0.0
        line: dict[str, object] = {
            "step": self._step,
            "done": done,
            "total": self._total,
            "unit": self._unit,
            "per_s": round(per_s, 3),
            "remaining_s": round((self._total - done) / per_s, 1) if per_s > 0 else None,
        }
        line |= {name: round(value, 3) for name, value in figures.items()}
        if self.troubles:
            line["troubles"] = dict(self.troubles)
        print(PROGRESS_PREFIX + json.dumps(line), flush=True)
