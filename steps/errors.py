"""The error that ends a job with one clear line."""


class StepError(Exception):
    """The job cannot continue; the message names the fault and the fix, and is shown without a traceback."""
