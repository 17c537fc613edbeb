"""The errors that end a job with one clear line."""

from __future__ import annotations


class StepError(Exception):
    """The job cannot go on; the message names what is wrong and the fix, without a traceback."""
