"""The errors that end a command with one line: something is wrong that the person at the keyboard can mend.

Whatever is asked for in a command's words or in its account may end with one, wherever that is found; a docstring names
them where more than the line follows from it.
"""


class OperatorError(Exception):
    """The message says what is wrong and how to mend it; no traceback is shown."""

    exit_status = 1


class UsageError(OperatorError):
    """The command line, or what it names, cannot be used: the message names the option or the path, and the fix."""

    exit_status = 2
