"""Counts what a training has cost over all its jobs, and decides when it must stop.

Reads and writes spent.json next to the checkpoints, on the head rank only: a killed job costs money, too.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from params.files import write_text
from params.programs import TrainArguments
from steps.errors import StepError

SPENT_FILE: Final = "spent.json"
SECONDS_PER_HOUR: Final = 3600.0
# A suggested budget leaves room for an estimate of the remaining time that is too low.
SUGGESTED_MARGIN: Final = 1.05


class Spending:
    """The dollars of one training; the clock runs from the construction."""

    def __init__(
        self,
        arguments: TrainArguments,
        hosts: int,
        folder: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start from the cost in the head's `folder`. Raises StepError for a spent budget, or without a price."""
        self._budget_usd, self._others_usd = arguments.budget_usd, arguments.other_steps_usd
        self._usd_per_s = hosts * arguments.instance_hour_usd / SECONDS_PER_HOUR
        self._path = folder / SPENT_FILE if folder else None
        self._clock, self._start_s = clock, clock()
        self._before_usd = _read(self._path)
        self._refuse()

    @property
    def is_known(self) -> bool:
        """Whether a price is set."""
        return self._usd_per_s > 0

    @property
    def usd(self) -> float:
        """Cost so far: every host since the program's start, and the jobs before this one."""
        return self._before_usd + (self._clock() - self._start_s) * self._usd_per_s

    @property
    def is_over(self) -> bool:
        """Whether training has used up its part of the budget."""
        return self._budget_usd > 0 and self.usd >= self._share_usd

    def figures(self, remaining_s: float) -> dict[str, float]:
        """Return cost_usd and remaining_usd for the log; nothing without a price."""
        return {"cost_usd": self.usd, "remaining_usd": remaining_s * self._usd_per_s} if self.is_known else {}

    def note(self) -> None:
        """Record the cost so far."""
        if self._path is None or not self.is_known:
            return
        write_text(self._path, json.dumps({"usd": self.usd}))

    def verdict(self, seen_samples: int, total_samples: int, remaining_s: float) -> str:
        """Return a line that says how the budget was spent, and how to continue."""
        remaining_usd = remaining_s * self._usd_per_s
        enough_usd = self._others_usd + self.usd + SUGGESTED_MARGIN * remaining_usd
        return (
            f"the budget is spent: training took ${self.usd:,.2f} of ${self._share_usd:,.2f} (BudgetUsd"
            f" {self._budget_usd:g} less {self._others_usd:g} for the other steps) for {seen_samples:,} of"
            f" {total_samples:,} samples; about ${remaining_usd:,.2f} more finish it. A checkpoint is kept: start again"
            f" with BudgetUsd={math.ceil(100 * enough_usd) / 100:.2f} or more, and it goes on from there"
        )

    @property
    def _share_usd(self) -> float:
        return self._budget_usd - self._others_usd

    def _refuse(self) -> None:
        if self._budget_usd <= 0:
            return
        if not self.is_known:
            raise StepError("budget_usd is set and instance_hour_usd is not: set it to the price of one host-hour")
        if self._share_usd <= self._before_usd:
            raise StepError(
                f"budget_usd {self._budget_usd:g} is spent: {self._others_usd:g} go to the other steps and"
                f" {self._before_usd:,.2f} went into this training before; raise BudgetUsd"
            )


def _read(path: Path | None) -> float:
    """Return the dollars recorded in a file; 0 without one."""
    if path is None or not path.is_file():
        return 0.0
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["usd"])
    except (ValueError, KeyError, TypeError):
        raise StepError(f"{path} is damaged: write what was spent, as in {json.dumps({'usd': 0.0})}") from None
