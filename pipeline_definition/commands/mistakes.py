"""What a person reads in place of a traceback: one line that names the option and the fix, and the exit status."""

import difflib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import boto3
from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

from params.s3 import error_code
from params.settings import SettingsError
from params.tables import table_beside
from pipeline_definition.checks.findings import with_fix
from pipeline_definition.errors import OperatorError

MISTAKES: Final = (OperatorError, SettingsError, ClientError, BotoCoreError, OSError, KeyboardInterrupt)
# The shell's status for a command that Ctrl-C ended.
INTERRUPTED: Final = 130
_OF_SYSTEM = table_beside(__file__)
FIXES: Final[Mapping[int | None, str]] = {getattr(errno, name): fix for name, fix in _OF_SYSTEM.items()}
SIGN_IN: Final = "`aws configure` or `aws sso login` signs in, AWS_PROFILE names a profile; --local needs no account"
UNSIGNED: Final = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
# What AWS calls credentials that it does not take, or takes no longer.
STALE: Final = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}


def told(error: BaseException, options: Mapping[str, object]) -> tuple[str, int]:
    """Return the line about an error and the exit status; `options` are the command's, by the name that is typed."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, OSError):
        return _of_system(error, options)
    if isinstance(error, ClientError | BotoCoreError):
        return _of_aws(error), 1
    text = str(error)
    option = next((name for name, value in _paths(options) if text.startswith(f"{value}: ")), None)
    status = 2 if isinstance(error, SettingsError) else getattr(error, "exit_status", 1)
    return (f"{option} {text}" if option else text), status


def _of_system(error: OSError, options: Mapping[str, object]) -> tuple[str, int]:
    fix = FIXES.get(error.errno, error.strerror or str(error))
    files = [Path(name).absolute() for name in (error.filename2, error.filename) if isinstance(name, str)]
    for name, value in _paths(options):
        named = value.absolute()
        for file in files:
            # The named one, inside it, a folder on the way to it, or its unfinished twin.
            is_unfinished = file.parent == named.parent and file.name.startswith(f".{named.name}.")
            if file == named or named in file.parents or file in named.parents or is_unfinished:
                return f"{name} {value}: {fix}", 2
    return (f"{error.filename}: {fix}" if files else fix), 1


def _paths(options: Mapping[str, object]) -> Iterator[tuple[str, Path]]:
    """Yield the options that name a file or folder, the longest path first: one may lie inside another."""
    paths = [(name, value) for name, value in options.items() if isinstance(value, Path)]
    yield from sorted(paths, key=lambda option: -len(option[1].absolute().parts))


def _of_aws(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, UNSIGNED) or error_code(error) in STALE:
        return f"{error}; {SIGN_IN}"
    if not isinstance(error, exceptions.EndpointConnectionError):
        return with_fix(str(error))
    text, known = str(error), boto3.Session().get_available_regions("sagemaker")
    if any(f".{region}." in text for region in known):
        return f"{text}; check the network, a proxy or a VPN"
    region = text.partition("//")[2].partition(".")[2].partition(".")[0]
    close = ", ".join(difflib.get_close_matches(region, known, n=3, cutoff=0))
    return f"{text}; there is no such region: did you mean {close}? account.region or --region names it"
