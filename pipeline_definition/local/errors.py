"""What can go wrong in the local control plane."""

from moto.core.exceptions import ServiceException

INTERNAL_ERROR = "SageMaker.JOB_INTERNAL_ERROR"
CAPACITY_ERROR = "SageMaker.CAPACITY_ERROR"


class RefusedRequestError(Exception):
    """An API request is refused: the client sees `code` and the message, as botocore's ClientError."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class NotOursError(Exception):
    """A request is about something that moto keeps: moto answers it."""


def invalid(message: str) -> RefusedRequestError:
    """Return the refusal of a request that can never work."""
    return RefusedRequestError("ValidationException", message)


def not_found(message: str) -> RefusedRequestError:
    return RefusedRequestError("ResourceNotFound", message)


class DefinitionError(ValueError):
    """A pipeline definition cannot be executed: the message names the step and what is unknown or missing."""


class StepFailureError(Exception):
    """A step failed; retry policies know why by `exception_type`: the program's own failure, None, is not retried."""

    def __init__(self, reason: str, exception_type: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.exception_type = reason, exception_type


class StepStoppedError(Exception):
    """A step was stopped from outside."""


class TimeLimitError(StepFailureError):
    """A job ran longer than its StoppingCondition allows."""


def as_refusal(error: Exception) -> RefusedRequestError:
    """Return any error as the refusal of a request; what is nobody's fault has status 500."""
    if isinstance(error, RefusedRequestError):
        return error
    if isinstance(error, StepFailureError):
        return invalid(error.reason)
    if isinstance(error, DefinitionError):
        return invalid(f"Unable to parse pipeline definition: {error}")
    if isinstance(error, NotImplementedError):  # by moto
        return RefusedRequestError("UnknownOperationException", str(error))
    return RefusedRequestError("InternalFailure", f"{type(error).__name__}: {error}", 500)


def as_failure(error: Exception) -> StepFailureError:
    """Return any error as a step's failure; what is not the program's or the request's fault can be retried."""
    if isinstance(error, StepFailureError):
        return error
    if isinstance(error, RefusedRequestError):
        return StepFailureError(f"ClientError: {error.message}")
    if isinstance(error, ServiceException):
        return StepFailureError(f"ClientError: {error}")
    return StepFailureError(f"InternalServerError: {type(error).__name__}: {error}", INTERNAL_ERROR)
