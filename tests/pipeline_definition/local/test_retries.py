import pytest

from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.retries import RetryPolicy, with_retries

FAULT, THROTTLED = "SageMaker.JOB_INTERNAL_ERROR", "Step.THROTTLING"


def policy(kind: str, **members: float) -> RetryPolicy:
    return RetryPolicy.model_validate({"ExceptionType": [kind], **members})


class Failing:
    """Fails so many times, each with the next of its kinds."""

    def __init__(self, *kinds: str | None) -> None:
        self.kinds, self.attempts, self.waits_s = list(kinds), 0, list[float]()

    def attempt(self) -> str:
        self.attempts += 1
        if self.attempts <= len(self.kinds):
            raise StepFailureError(f"failure {self.attempts}", self.kinds[self.attempts - 1])
        return "done"

    def run(self, *policies: RetryPolicy) -> str:
        return with_retries(policies, self.attempt, self.waits_s.append)


def test_a_covered_failure_is_tried_again_with_growing_pauses() -> None:
    failing = Failing(FAULT, FAULT, FAULT)
    covering = policy(FAULT, IntervalSeconds=2.0, BackoffRate=3.0, MaxAttempts=3)
    assert failing.run(covering) == "done"
    assert failing.waits_s == [2.0, 6.0, 18.0]


def test_attempts_are_counted() -> None:
    failing = Failing(FAULT, FAULT, FAULT)
    with pytest.raises(StepFailureError, match="failure 3"):
        failing.run(policy(FAULT, MaxAttempts=2))


@pytest.mark.parametrize("kind", [None, THROTTLED])
def test_a_failure_that_no_policy_covers_is_not_tried_again(kind: str | None) -> None:
    failing = Failing(kind)
    with pytest.raises(StepFailureError, match="failure 1"):
        failing.run(policy(FAULT, MaxAttempts=9))
    assert failing.attempts == 1


def test_each_policy_counts_its_own_retries() -> None:
    failing = Failing(FAULT, THROTTLED, FAULT)
    fault = policy(FAULT, IntervalSeconds=1.0, MaxAttempts=2)
    throttled = policy(THROTTLED, IntervalSeconds=5.0, MaxAttempts=1)
    assert failing.run(fault, throttled) == "done"
    assert failing.waits_s == [1.0, 5.0, 2.0]


def test_a_policy_ends_with_its_time() -> None:
    failing = Failing(FAULT)
    with pytest.raises(StepFailureError):
        failing.run(policy(FAULT, IntervalSeconds=61.0, ExpireAfterMin=1))
