"""The bounded queue in front of the model: requests in, batches of pictures that share a shape out.

First come, first served: a batch has the shape of the oldest request and is filled up with the next ones of that shape.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Final

from steps.serving.errors import ClosedError, QueueFullError
from steps.serving.ticket import Slot, Ticket

# Share of a request's time that may already be spoken for when it is taken in: the rest is for errors of the estimate.
ADMISSION_SHARE: Final = 0.8
# A batch is reckoned to take so many times what the last ones did.
LATENESS_MARGIN: Final = 1.25
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


class BatchQueue:
    """Requests that wait for the model; every method may be called from any thread."""

    def __init__(self, max_requests: int, max_batch_size: int, wait_s: float) -> None:
        self.max_batch_size = max_batch_size
        self._max_requests, self._wait_s = max_requests, wait_s
        self._tickets: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pace = Pace()
        self._running: list[Slot] = []
        self._running_since_s = 0.0
        self._recent_requests = 0

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._tickets)

    def submit(self, ticket: Ticket) -> None:
        """Take in a request.

        Raises QueueFullError when as many wait as may, or when those before it would use up its time, and ClosedError
        once the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise ClosedError
            self._drop_dead()
            ahead_s = self._seconds_ahead()
            own_s = self._pace.seconds_for(ticket.waiting_work)
            available_s = ADMISSION_SHARE * (ticket.deadline_s - time.monotonic())
            # A request that would wait for nobody is always tried: the estimate may be wrong.
            late = ahead_s > 0 and ahead_s + own_s > available_s
            if late or len(self._tickets) >= self._max_requests:
                raise QueueFullError(_retry_after_s(ahead_s))
            ticket.queued = self._requests() > 0
            self._tickets.append(ticket)
            self._recent_requests = max(self._recent_requests, self._requests())
            self._changed.notify_all()

    def next_batch(self) -> list[Slot]:
        """Wait for work and return the next batch; an empty one when the queue is closed.

        The batch before it is over, whatever became of it.
        """
        with self._changed:
            self._running = []
            while True:
                self._changed.wait_for(lambda: self._closed or self._tickets)
                self._wait_for_company()
                self._drop_dead()
                if slots := self._take():
                    return self._start(slots)
                if self._closed:
                    return []

    def learn(self, work: float, seconds: float) -> None:
        """Take note of how long the model took for so much work."""
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
        """Wait for others to share the batch, while as many requests as lately may still be on their way.

        A single client never waits here: nobody else was there lately.
        """
        deadline_s = time.monotonic() + self._wait_s
        while not (self._closed or self._is_full() or len(self._tickets) >= self._recent_requests):
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0 or not self._changed.wait(remaining_s):
                return

    def _is_full(self) -> bool:
        shape = self._tickets[0].shape if self._tickets else None
        return sum(t.waiting_pictures for t in self._tickets if t.shape == shape) >= self.max_batch_size

    def _take(self) -> list[Slot]:
        """Take the next batch out; those that it would bring too late are turned away instead."""
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

    def _start(self, slots: list[Slot]) -> list[Slot]:
        self._running, self._running_since_s = slots, time.monotonic()
        self._recent_requests = self._requests()
        return slots

    def _requests(self) -> int:
        """Count the requests at hand, without those just answered: their clients may be back already."""
        running = {id(slot.ticket) for slot in self._running if slot.ticket.live}
        return len(running | {id(ticket) for ticket in self._tickets})

    def _seconds_ahead(self) -> float:
        # What nobody waits for any more is given up at its next step.
        running_s = self._pace.seconds_for(_work([slot for slot in self._running if slot.ticket.live]))
        elapsed_s = time.monotonic() - self._running_since_s
        waiting_s = self._pace.seconds_for(sum(ticket.waiting_work for ticket in self._tickets))
        return max(0.0, running_s - elapsed_s) + waiting_s

    def _drop_dead(self) -> None:
        self._tickets = deque(ticket for ticket in self._tickets if ticket.live)


def _retry_after_s(ahead_s: float) -> int:
    """Return when to come back: half of the queue's room is free long before all of it is done."""
    return max(1, math.ceil(ahead_s / 2))


def _work(slots: list[Slot]) -> float:
    return sum(slot.ticket.shape.work for slot in slots)
