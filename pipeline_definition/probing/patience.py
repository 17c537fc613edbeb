"""Asks a busy service again: throttled, unavailable, or out of reach for a moment.

Reads and writes what the call does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from pipeline_definition.runs.executions import is_busy

T = TypeVar("T")
TRIES: Final = 20


@dataclass
class ProbePatience:
    """How long is waited between two tries, and how often it was."""

    interval_s: float
    waited: int = 0

    def ask(self, call: Callable[[], T]) -> T:
        """Return what a call returns, once the service is not too busy; raises its last error."""
        for _ in range(TRIES):
            try:
                return call()
            except (ClientError, BotoCoreError) as error:
                if not is_busy(error):
                    raise
            self.waited += 1
            time.sleep(self.interval_s)
        return call()
