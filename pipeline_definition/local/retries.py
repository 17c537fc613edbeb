"""Retry policies: which failures of a step are tried again, when, and how often."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline_definition.local.errors import StepFailureError

T = TypeVar("T")
Retryable = Literal[
    "Step.SERVICE_FAULT",
    "Step.THROTTLING",
    "SageMaker.JOB_INTERNAL_ERROR",
    "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT",
]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class RetryPolicy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    types: Annotated[frozenset[Retryable], BeforeValidator(_listed)] = Field(alias="ExceptionType", min_length=1)
    interval_s: float = Field(1.0, alias="IntervalSeconds")
    backoff_rate: float = Field(2.0, alias="BackoffRate")
    # SageMaker's own default where a policy names neither attempts nor a time.
    max_attempts: int = Field(5, alias="MaxAttempts")
    expires_after_min: float | None = Field(None, alias="ExpireAfterMin")

    def is_spent(self, retries: int, elapsed_s: float) -> bool:
        """Whether a failure is not tried again after so many retries, and so long since the first attempt."""
        if self.expires_after_min is not None:
            return elapsed_s > 60.0 * self.expires_after_min
        return retries >= self.max_attempts


def with_retries(policies: Sequence[RetryPolicy], attempt: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """Return what `attempt` returns once it succeeds; raise its failure when no policy covers it any more.

    MaxAttempts counts retries; before the k-th it waits IntervalSeconds * BackoffRate^(k - 1).
    """
    began_s = time.monotonic()
    used: Counter[RetryPolicy] = Counter()
    while True:
        try:
            return attempt()
        except StepFailureError as failure:
            policy = next((policy for policy in policies if failure.exception_type in policy.types), None)
            if policy is None:
                raise
            wait_s = policy.interval_s * policy.backoff_rate ** used[policy]
            if policy.is_spent(used[policy], time.monotonic() - began_s + wait_s):
                raise
            used[policy] += 1
        sleep(wait_s)
