"""Retry policies: which failures of a step are tried again, when, and how often."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline_definition.local.definition import RetryPolicy
from pipeline_definition.local.errors import StepFailureError

T = TypeVar("T")
# SageMaker's own default where a policy names neither attempts nor a time.
DEFAULT_ATTEMPTS = 5


def with_retries(policies: Sequence[RetryPolicy], attempt: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """Call `attempt` until it succeeds or no policy covers its failure any more; return its result.

    A policy's MaxAttempts counts the retries after the first attempt; before its k-th, it waits
    IntervalSeconds * BackoffRate^(k - 1).
    """
    began_s = time.monotonic()
    used: dict[int, int] = {}
    while True:
        try:
            return attempt()
        except StepFailureError as failure:
            index = _covering(policies, failure)
            if index is None:
                raise
            policy, retries = policies[index], used.get(index, 0)
            wait_s = policy.interval_s * policy.backoff_rate**retries
            if _spent(policy, retries, time.monotonic() - began_s + wait_s):
                raise
            used[index] = retries + 1
        sleep(wait_s)


def _covering(policies: Sequence[RetryPolicy], failure: StepFailureError) -> int | None:
    for index, policy in enumerate(policies):
        if failure.exception_type in policy.exception_types:
            return index
    return None


def _spent(policy: RetryPolicy, retries: int, elapsed_s: float) -> bool:
    if policy.expires_after_s is not None:
        return elapsed_s > policy.expires_after_s
    return retries >= (DEFAULT_ATTEMPTS if policy.max_attempts is None else policy.max_attempts)
