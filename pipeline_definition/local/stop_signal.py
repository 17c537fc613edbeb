"""A request to stop that reaches whatever runs at the moment."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline_definition.local.errors import StepStoppedError


class StopSignal:
    """Set once; calls what was registered, and whatever registers later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        with self._lock:
            self._set.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @property
    def is_set(self) -> bool:
        return self._set.is_set()

    def check(self) -> None:
        if self.is_set:
            raise StepStoppedError

    def sleep(self, seconds: float) -> None:
        """Wait; raise StepStoppedError at once when a stop is asked for."""
        if self._set.wait(seconds):
            raise StepStoppedError

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """While inside, `callback` is called when a stop is asked for."""
        with self._lock:
            self._callbacks.append(callback)
            already = self._set.is_set()
        try:
            if already:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)
