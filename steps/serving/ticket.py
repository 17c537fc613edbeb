"""One request on its way through the queue and the model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

from steps.serving.pictures import Picture, PictureJob, Shape


class Ticket:
    """The pictures of one request, and the future that holds them all when the last is drawn.

    Made on the event loop, taken apart by the queue (under its lock) and filled by the model's thread.
    """

    def __init__(self, shape: Shape, jobs: Sequence[PictureJob], deadline_s: float) -> None:
        self.shape, self.jobs, self.deadline_s = shape, tuple(jobs), deadline_s
        self.future: Future[list[Picture]] = Future()
        self.queued = False
        """Others were before it: then it may be turned away while it waits."""
        self.started_s: float | None = None
        self._waiting = deque(range(len(jobs)))
        self._pictures: dict[int, Picture] = {}

    @property
    def live(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.future.done() and time.monotonic() < self.deadline_s

    @property
    def waiting_pictures(self) -> int:
        """Pictures that no batch has taken yet."""
        return len(self._waiting)

    @property
    def waiting_work(self) -> float:
        """Cost of those, in pixels times steps."""
        return self.waiting_pictures * self.shape.work

    def take(self, count: int) -> list[Slot]:
        """Take up to `count` of its waiting pictures into a batch."""
        if self.started_s is None:
            self.started_s = time.monotonic()
        taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        return [Slot(self, self.jobs[index], index) for index in taken]

    def deliver(self, index: int, picture: Picture) -> None:
        """Hand in one picture."""
        self._pictures[index] = picture
        if len(self._pictures) == len(self.jobs):
            # The other side may give up at any moment: a result that nobody takes is no error.
            with suppress(InvalidStateError):
                self.future.set_result([self._pictures[position] for position in range(len(self.jobs))])

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def cancel(self) -> None:
        """Say that nobody waits for it any more."""
        self.future.cancel()


@dataclass(frozen=True)
class Slot:
    """One picture of a ticket, in a batch."""

    ticket: Ticket
    job: PictureJob
    index: int
    """Which of the ticket's pictures it is."""
