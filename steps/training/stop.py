"""Stops all ranks together: after SIGTERM or a spent budget they save a checkpoint after the same step, and end.

What a training has cost over all its jobs is read from and written to spent.json next to the checkpoints, on the head
rank only: a killed job costs money, too.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch
import torch.distributed as dist

from params.files import write_text
from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.ranks import World

# The status that a shell reports for a process that SIGTERM ended: a stopped job without a model.
STOPPED_STATUS: Final = 128 + signal.SIGTERM
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
SPENT_FILE: Final = "spent.json"
SECONDS_PER_HOUR: Final = 3600.0
# A suggested budget leaves room for an estimate of the remaining time that is too low.
SUGGESTED_MARGIN: Final = 1.05


class Reason(IntEnum):
    """Why to stop; the greatest of all ranks counts."""

    NONE = 0
    SIGNAL = 1
    BUDGET = 2


class StopVote:
    """Decides whether to stop, and why: each round has the same result on all ranks."""

    def __init__(self, world: World) -> None:
        self._control = world.control
        self._asked = Reason.NONE
        self._ballot = torch.zeros(1, dtype=torch.int32)
        self._pending: Any = None

    def ask(self, signal_number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Vote for stopping, from now on."""
        self._asked = max(self._asked, Reason.SIGNAL)

    def ask_for_budget(self) -> None:
        """Vote for stopping because the budget is spent."""
        self._asked = Reason.BUDGET

    def cast(self) -> None:
        """Begin a round, on all ranks at the same step; it runs in the background of the step."""
        self._ballot.fill_(int(self._asked))
        if self._control is not None:
            self._pending = dist.all_reduce(self._ballot, dist.ReduceOp.MAX, group=self._control, async_op=True)

    def passed(self) -> bool:
        """Return the outcome of the last round."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.wait()
        return self.reason is not Reason.NONE

    @property
    def reason(self) -> Reason:
        """Why the last round decided to stop."""
        return Reason(int(self._ballot))


@contextmanager
def asked_by_signals(vote: StopVote) -> Iterator[None]:
    """Have SIGTERM and SIGINT vote for stopping instead of ending the process, for a while."""
    before = {number: signal.signal(number, vote.ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Spending:
    """The dollars of one training; the clock runs from the construction."""

    def __init__(
        self, arguments: TrainArguments, hosts: int, folder: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start from the cost in the head's `folder`. Raises StepError for a spent budget, or without a price."""
        self._budget_usd, self._others_usd = arguments.budget_usd, arguments.other_steps_usd
        self._usd_per_s = hosts * arguments.instance_hour_usd / SECONDS_PER_HOUR
        self._path = folder / SPENT_FILE if folder else None
        self._clock, self._start_s = clock, clock()
        self._before_usd = _read(self._path)
        self._refuse()

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
        return {"cost_usd": self.usd, "remaining_usd": remaining_s * self._usd_per_s} if self._usd_per_s else {}

    def note(self) -> None:
        """Record the cost so far, where there is a price."""
        if self._path is not None and self._usd_per_s:
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
        if self._budget_usd > 0 and not self._usd_per_s:
            raise StepError("budget_usd is set and instance_hour_usd is not: set it to the price of one host-hour")
        if self._budget_usd > 0 and self._share_usd <= self._before_usd:
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
