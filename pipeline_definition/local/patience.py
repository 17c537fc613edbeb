"""How often a training job that lost its hosts begins again on others.

A managed spot job does until MaxWaitTimeInSeconds, any other as often as its RetryStrategy says; both go on from the
checkpoints that reached S3.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_RetryStrategy.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Patience:
    """What a job may still be granted."""

    spot: bool
    """Its hosts may be taken away at any time."""
    give_up_s: float
    """Of a spot job: when it waits no longer, on the monotonic clock."""
    tries_left: int
    """Of any other job."""

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Patience:
        """Read CreateTrainingJob's request."""
        wait_s = (request.get("StoppingCondition") or {}).get("MaxWaitTimeInSeconds") or 0
        tries = (request.get("RetryStrategy") or {}).get("MaximumRetryAttempts") or 0
        return cls(bool(request.get("EnableManagedSpotTraining")), time.monotonic() + wait_s, int(tries))

    def once_more(self) -> bool:
        """Return whether the job begins again, and count it."""
        if self.spot:
            return time.monotonic() <= self.give_up_s
        self.tries_left -= 1
        return self.tries_left >= 0
