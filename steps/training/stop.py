"""Stops all ranks together: after SIGTERM or a spent budget they save a checkpoint after the same step, and end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any, Final

import torch
import torch.distributed as dist

from steps.training.ranks import World

# The status that a shell reports for a process that SIGTERM ended: a stopped job without a model.
STOPPED_STATUS: Final = 128 + signal.SIGTERM
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


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
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
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
