"""Politeness towards hosts, shared by the threads of a process: who says `later` is asked later, by nobody sooner.

A host that answers 429 or 503 with Retry-After (RFC 9110, 10.2.3; RFC 6585, 4) is left alone for that long; its rows
wait where the wait is short, and fail at once, without a request, where it is long or comes again and again.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from steps.data.causes import FetchError

MAX_PAUSES: Final = 5
"""In a row, without another answer between them: then the host is set aside."""
SET_ASIDE_S: Final = 600.0


@dataclass(frozen=True)
class _Pause:
    until_s: float
    count: int
    cause: str


class HostTurns:
    """Who may ask which host now. Safe for threads."""

    def __init__(self, max_wait_s: float, connections: int = 0) -> None:
        """Rows wait up to `max_wait_s` for a host; at most so many `connections` to each at a time, 0: any number."""
        self._max_wait_s, self._connections = max_wait_s, connections
        self._changed = threading.Condition()
        self._active: Counter[str] = Counter()
        self._pauses: dict[str, _Pause] = {}

    @contextmanager
    def turn(self, host: str) -> Iterator[float]:
        """Wait for a turn; yield the seconds that it took. Raises FetchError where that is longer than a row waits."""
        began_s = time.monotonic()
        with self._changed:
            while (wait_s := self._wait_s(host)) > 0:
                self._changed.wait(wait_s)
            self._active[host] += 1
        try:
            yield time.monotonic() - began_s
        finally:
            with self._changed:
                self._active[host] -= 1
                if not self._active[host]:
                    del self._active[host]
                if self._connections:
                    self._changed.notify_all()

    def pause(self, host: str, seconds: float, asked_s: float, cause: str) -> None:
        """Leave a host alone that answered so to a request of `asked_s` (time.monotonic)."""
        now_s = time.monotonic()
        with self._changed:
            known = self._pauses.get(host)
            # Answers to requests of before the pause say nothing new.
            count = 1 if known is None else known.count + (asked_s >= known.until_s)
            if count > MAX_PAUSES:
                seconds = max(seconds, SET_ASIDE_S)
            until_s = max(now_s + seconds, 0 if known is None else known.until_s)
            self._pauses[host] = _Pause(until_s, count, cause)

    def answered(self, host: str, asked_s: float) -> None:
        """Note that a host answered a request of `asked_s` otherwise."""
        if host in self._pauses:
            with self._changed:
                known = self._pauses.get(host)
                if known is not None and asked_s >= known.until_s:
                    del self._pauses[host]

    def _wait_s(self, host: str) -> float:
        pause = self._pauses.get(host)
        if pause is not None:
            left_s = pause.until_s - time.monotonic()
            if left_s > self._max_wait_s:
                raise FetchError(pause.cause)
            if left_s > 0:
                return left_s
        is_full = 0 < self._connections <= self._active[host]
        return 1.0 if is_full else 0.0


def retry_after_s(header: str | None, date: str | None = None) -> float | None:
    """Return the seconds that a Retry-After asks for (a number, or a date against the answer's own), or None."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(date) if date else None
        return max(0.0, until.timestamp() - (time.time() if now is None else now.timestamp()))
    except (TypeError, ValueError, OverflowError):
        return None
