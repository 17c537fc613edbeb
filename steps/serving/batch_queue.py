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
from steps.serving.pace import Pace
from steps.serving.ticket import Slot, Ticket

# Share of a request's time that may already be spoken for when it is taken in: the rest is for errors of the estimate.
ADMISSION_SHARE: Final = 0.8


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
                # Not when all of it is done: half of the queue's room is free before that.
                raise QueueFullError(max(1, math.ceil(ahead_s / 2)))
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
                if self._tickets:
                    return self._start(self._take())
                if self._closed:
                    return []

    def drawn(self) -> float:
        """Say that the running batch is drawn, so that the queue learns the model's pace; return its seconds."""
        with self._changed:
            seconds = time.monotonic() - self._running_since_s
            self._pace.record(_work(self._running), seconds)
            return seconds

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
        shape = self._tickets[0].shape
        slots: list[Slot] = []
        for ticket in list(self._tickets):
            if ticket.shape == shape:
                slots += ticket.take(self.max_batch_size - len(slots))
                if ticket.waiting_pictures == 0:
                    self._tickets.remove(ticket)
            if len(slots) == self.max_batch_size:
                break
        return slots

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


def _work(slots: list[Slot]) -> float:
    return sum(slot.ticket.shape.work for slot in slots)
