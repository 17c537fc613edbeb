"""How fast the model draws, learnt from the batches that it has drawn."""

from __future__ import annotations

from typing import Final

# What a new batch's figures weigh against all before it: some ten batches are remembered.
NEW_WEIGHT: Final = 0.1


class Pace:
    """Work (pixels times steps) for each second, as a moving average weighted by time."""

    def __init__(self) -> None:
        self._work = 0.0
        self._seconds = 0.0

    def record(self, work: float, seconds: float) -> None:
        """Count one batch."""
        self._work = self._work * (1 - NEW_WEIGHT) + work
        self._seconds = self._seconds * (1 - NEW_WEIGHT) + seconds

    def seconds_for(self, work: float) -> float:
        """Return how long that much work takes; 0 as long as nothing is known."""
        return work * self._seconds / self._work if self._work > 0 else 0.0
