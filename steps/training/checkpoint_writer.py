"""Writes checkpoints in the background of training, and locks the folder against other jobs."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final

from safetensors import SafetensorError
from torch import Tensor

from steps.errors import StepError
from steps.training.checkpoint_folder import CheckpointFolder, CheckpointManifest

LOCK_FILE: Final = "lock"
LOCK_WAIT_S: Final = 20.0


class CheckpointWriter:
    """Writes one checkpoint at a time."""

    def __init__(self, folder: CheckpointFolder) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None

    def submit(self, manifest: CheckpointManifest, tensors: Mapping[str, Mapping[str, Tensor]], log: str) -> None:
        """Begin to write a checkpoint of tensors that no longer change; wait for the previous one first."""
        self.wait()
        self._pending = self._pool.submit(self._folder.write, manifest, tensors, log)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk. Raises StepError if not: training without would risk days."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            path = pending.result()
        except (OSError, SafetensorError) as error:
            raise StepError(f"{self._folder.folder}: the checkpoint could not be written: {error}") from None
        print(f"checkpoint {path}", flush=True)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()


def lock_folder(folder: Path, wait_s: float = LOCK_WAIT_S) -> IO[str]:
    """Return the folder's open lock file: while it is open no other process can lock it.

    A killed process may take a moment to end. Raises StepError if another one keeps the lock, or the folder is not
    writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise StepError(
            f"{folder}: no checkpoint can be written: {error.strerror}; the checkpoint volume must be writable"
        ) from None
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                file.close()
                raise StepError(
                    f"{folder}: another job trains with the same settings; wait for it or stop it"
                ) from None
            time.sleep(0.2)
        except OSError:
            # Some network file systems have no locks.
            return file
