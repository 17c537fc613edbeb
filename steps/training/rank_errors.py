"""Reports a rank's error to its launcher, through the error file of torchrun's contract.

Writes the file that TORCHELASTIC_ERROR_FILE names; the launcher reads those of all ranks and reports the cause of the
others.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from params.model import Model
from steps.errors import StepError

ERROR_FILE_VARIABLE: Final = "TORCHELASTIC_ERROR_FILE"
ERROR_FILE: Final = "error.json"


class LostRankError(StepError):
    """Another rank is gone: its own error is the cause."""


class RankError(Model):
    """Why a rank ended."""

    rank: int
    """Of all ranks."""
    message: str
    """One line."""
    timestamp: int
    """Seconds since 1970; torchrun reads it."""
    time_s: float
    """The same, finer."""
    is_consequence: bool
    """Whether another rank caused it."""


def record_error(error: BaseException | str, environment: Mapping[str, str]) -> None:
    """Write the reason to the launcher's error file, and print it."""
    message = str(error) if isinstance(error, (str, StepError)) else f"{type(error).__name__}: {error}"
    rank, path = int(environment.get("RANK", "0")), environment.get(ERROR_FILE_VARIABLE)
    print(f"rank {rank}: {message}", file=sys.stderr, flush=True)
    if not path:
        return
    now_s = time.time()
    recorded = RankError(
        rank=rank,
        message=" ".join(message.split()),
        timestamp=int(now_s),
        time_s=now_s,
        is_consequence=isinstance(error, LostRankError),
    )
    Path(path).write_text(recorded.model_dump_json(), encoding="utf-8")


def end_process(reason: str | LostRankError) -> None:
    """End this process at once, from any thread: a hanging collective cannot be interrupted."""
    record_error(reason, os.environ)
    sys.stdout.flush()
    os._exit(1)


def first_error(folder: Path) -> RankError | None:
    """Return the first error of this host's ranks, preferably one that no other rank caused."""
    errors: list[RankError] = []
    for path in folder.rglob(ERROR_FILE):
        try:
            errors.append(RankError.model_validate_json(path.read_bytes()))
        except (OSError, ValueError):
            continue
    return min(errors, key=lambda error: (error.is_consequence, error.time_s), default=None)
