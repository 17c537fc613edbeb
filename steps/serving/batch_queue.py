"""The bounded queue in front of the model: requests in, batches of pictures that share a shape out.

First come, first served: a batch has the shape of the oldest request and is filled up with the next ones of that shape.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from steps.serving.errors import ClosedError, QueueFullError
from steps.serving.pictures import Picture, PictureJob, Shape

# Share of a request's time that may already be taken when it is admitted: the rest is for errors of the estimate.
ADMISSION_SHARE: Final = 0.8
# A batch is assumed to take this many times as long as the last ones.
LATENESS_MARGIN: Final = 1.25
# Weight of a new batch against all before it: the average covers some ten batches.
NEW_WEIGHT: Final = 0.1


class Ticket:
    """A request's pictures and their future: made on the event loop, split under the lock, filled by the model."""

    def __init__(self, shape: Shape, jobs: Sequence[PictureJob], deadline_s: float) -> None:
        self.shape, self.jobs, self.deadline_s = shape, tuple(jobs), deadline_s
        self.future: Future[list[Picture]] = Future()
        """Whoever waits for it no more cancels it."""
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

    def take(self, count: int) -> "list[Slot]":
        """Take up to `count` of its waiting pictures into a batch."""
        if self.started_s is None:
            self.started_s = time.monotonic()
        taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        return [Slot(self, self.jobs[index], index) for index in taken]

    def deliver(self, index: int, picture: Picture) -> None:
        self._pictures[index] = picture
        if len(self._pictures) == len(self.jobs):
            # The other side may give up at any moment: a result that nobody takes is no error.
            with suppress(InvalidStateError):
                self.future.set_result([self._pictures[position] for position in range(len(self.jobs))])

    def fail(self, error: Exception) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class Slot:
    """One picture of a ticket, in a batch."""

    ticket: Ticket
    job: PictureJob
    index: int


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
        """Return how long that much work takes; 0 before the first batch."""
        return work * self._seconds / self._work if self._work > 0 else 0.0


class BatchQueue:
    """Requests that wait for the model; safe to call from any thread."""

    def __init__(self, max_requests: int, max_batch_size: int, wait_s: float, sheds: bool = True) -> None:
        """`sheds`: requests that the queue has no room or no time for are turned away."""
        self.max_batch_size, self._sheds = max_batch_size, sheds
        self._max_requests, self._wait_s = max_requests, wait_s
        self._tickets: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pace = Pace()
        self._running: list[Slot] = []
        self._running_since_s = 0.0
        self._recent_requests = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def submit(self, ticket: Ticket) -> None:
        """Take in a request. Raises QueueFullError without room or time for it, and ClosedError once it is closed."""
        with self._changed:
            if self._closed:
                raise ClosedError
            self._drop_dead()
            ahead_s = self._seconds_ahead()
            own_s = self._pace.seconds_for(ticket.waiting_work)
            available_s = ADMISSION_SHARE * (ticket.deadline_s - time.monotonic())
            # A request with none ahead is always tried: the estimate may be wrong.
            late = ahead_s > 0 and ahead_s + own_s > available_s
            if self._sheds and (late or len(self._tickets) >= self._max_requests):
                raise QueueFullError(_retry_after_s(ahead_s))
            ticket.queued = self._sheds and self._requests() > 0
            self._tickets.append(ticket)
            self._recent_requests = max(self._recent_requests, self._requests())
            self._changed.notify_all()

    def next_batch(self) -> list[Slot]:
        """Wait for the next batch, and count the last one as done, however it went; empty when the queue is closed."""
        with self._changed:
            self._running = []
            while True:
                self._changed.wait_for(lambda: self._closed or self._tickets)
                self._wait_for_company()
                self._drop_dead()
                slots = self._take()
                if slots or self._closed:
                    self._running, self._running_since_s = slots, time.monotonic()
                    self._recent_requests = self._requests()
                    return slots

    def learn(self, work: float, seconds: float) -> None:
        """Record how long the model took for an amount of work."""
        with self._changed:
            self._pace.record(work, seconds)

    def close(self) -> None:
        """Take in no more requests; those that wait are still served."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self, error: Exception) -> None:
        """Close, and end every waiting request with `error`."""
        with self._changed:
            self.close()
            while self._tickets:
                self._tickets.popleft().fail(error)

    def _wait_for_company(self) -> None:
        """Wait for as many requests as there were lately to share the batch: a single client never waits here."""
        deadline_s = time.monotonic() + self._wait_s
        while not (self._closed or self._is_full() or len(self._tickets) >= self._recent_requests):
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0 or not self._changed.wait(remaining_s):
                return

    def _is_full(self) -> bool:
        shape = self._tickets[0].shape if self._tickets else None
        return sum(t.waiting_pictures for t in self._tickets if t.shape == shape) >= self.max_batch_size

    def _take(self) -> list[Slot]:
        """Take out the next batch; requests that it would finish too late are refused instead."""
        slots: list[Slot] = []
        while self._tickets and not slots:
            mates = self._mates()
            pictures = min(self.max_batch_size, sum(ticket.waiting_pictures for ticket in mates))
            done_s = time.monotonic() + LATENESS_MARGIN * self._pace.seconds_for(pictures * mates[0].shape.work)
            for ticket in mates:
                if ticket.queued and ticket.started_s is None and done_s > ticket.deadline_s:
                    ticket.fail(QueueFullError(_retry_after_s(self._seconds_ahead())))
                else:
                    slots += ticket.take(self.max_batch_size - len(slots))
                if ticket.waiting_pictures == 0 or ticket.future.done():
                    self._tickets.remove(ticket)
        return slots

    def _mates(self) -> list[Ticket]:
        """Return the oldest request and those of its shape, as many as a batch holds."""
        mates: list[Ticket] = []
        pictures = 0
        for ticket in self._tickets:
            if ticket.shape == self._tickets[0].shape and pictures < self.max_batch_size:
                mates.append(ticket)
                pictures += ticket.waiting_pictures
        return mates

    def _requests(self) -> int:
        """Count the requests at hand, without those just answered: their clients may be back already."""
        running = {id(slot.ticket) for slot in self._running if slot.ticket.live}
        return len(running | {id(ticket) for ticket in self._tickets})

    def _seconds_ahead(self) -> float:
        # A picture that no client waits for is abandoned at its next step.
        running = sum(slot.ticket.shape.work for slot in self._running if slot.ticket.live)
        running_s = self._pace.seconds_for(running)
        elapsed_s = time.monotonic() - self._running_since_s
        waiting_s = self._pace.seconds_for(sum(ticket.waiting_work for ticket in self._tickets))
        return max(0.0, running_s - elapsed_s) + waiting_s

    def _drop_dead(self) -> None:
        self._tickets = deque(ticket for ticket in self._tickets if ticket.live)


def _retry_after_s(ahead_s: float) -> int:
    """Return when to come back: half of the queue is free long before all of it is done."""
    return max(1, math.ceil(ahead_s / 2))
