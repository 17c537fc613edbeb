"""Writes checkpoints in the background of training, locks the folder against other jobs, and watches that they arrive.

SageMaker has been seen to stop copying checkpoints to S3 silently. The watch reads the job's own and lists the prefix
to which they are copied; it writes only to stdout: at every check a line for the metric definitions, and a warning
while the newest checkpoint in S3 is too old.
"""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from safetensors import SafetensorError
from torch import Tensor

from params.layout import CHECKPOINT_AGE_S, CHECKPOINT_LAG_S, MANIFEST_FILE
from steps.data.storage import Storage
from steps.errors import StepError
from steps.training.checkpoint_folder import CheckpointFolder, CheckpointManifest
from steps.training.training_log import to_line

LOCK_FILE: Final = "lock"
LOCK_WAIT_S: Final = 20.0
PERIOD_S: Final = 60.0


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
        self._pool.shutdown()


def lock_folder(folder: Path, wait_s: float = LOCK_WAIT_S) -> IO[str]:
    """Return the folder's open lock file, for which a killed process may be waited for; StepError without it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("w")
    except OSError as error:
        fix = "the checkpoint volume must be writable"
        raise StepError(f"{folder}: no checkpoint can be written: {error.strerror}; {fix}") from None
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                file.close()
                fix = "wait for it or stop it"
                raise StepError(f"{folder}: another job trains with the same settings; {fix}") from None
            time.sleep(0.2)
        except OSError:
            # Some network file systems have no locks.
            return file


@dataclass(frozen=True)
class Landing:
    """How far the checkpoints in S3 are behind those on disk."""

    newest: str | None
    """The newest checkpoint that is complete in S3."""
    age_s: float
    """Since it was written; without one, since the watch began: the training that an interruption costs."""
    waiting: str | None
    """The oldest later checkpoint, not yet complete in S3."""
    lag_s: float
    """Since that one was written; 0 without one."""


class CheckpointWatch:
    """The checkpoints of one training, on disk and in S3."""

    def __init__(
        self, folder: CheckpointFolder, uri: str, max_lag_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Watch the copies of `folder` under `uri`: a checkpoint may take `max_lag_s` to land."""
        self._folder, self._max_lag_s, self._clock = folder, max_lag_s, clock
        self._uri = f"{uri.rstrip('/')}/{folder.folder.name}"
        self._begun_s = clock()
        self._written: dict[str, float] = {}
        self._landed: set[str] = set()

    def look(self) -> Landing:
        """Compare once. Raises OSError if S3 does not answer or denies the listing."""
        now_s = self._clock()
        for path in self._folder.paths():
            if path.name not in self._landed:
                # The writer may remove old checkpoints at any time.
                with suppress(FileNotFoundError):
                    self._written[path.name] = (path / MANIFEST_FILE).stat().st_mtime
                    if self._is_whole(path):
                        self._landed.add(path.name)
        newest = max(self._landed, default=None)
        waiting = min((name for name in self._written if newest is None or name > newest), default=None)
        since_s = self._begun_s if newest is None else self._written[newest]
        lag_s = now_s - self._written[waiting] if waiting else 0.0
        return Landing(newest, max(0.0, now_s - since_s), waiting, max(0.0, lag_s))

    def tell(self) -> None:
        """Look, and print the result."""
        try:
            landing = self.look()
        except (OSError, ValueError) as error:
            print(f"checkpoints: {self._uri} cannot be listed: {' '.join(str(error).split())[:200]}", flush=True)
            return
        print(to_line({CHECKPOINT_AGE_S: landing.age_s, CHECKPOINT_LAG_S: landing.lag_s}), flush=True)
        if landing.lag_s > self._max_lag_s:
            print(self._warning(landing), flush=True)

    def _is_whole(self, path: Path) -> bool:
        """Return whether every file of a checkpoint is in S3 with the same size."""
        wanted = {file.name: file.stat().st_size for file in path.iterdir()}
        there = Storage(f"{self._uri}/{path.name}").sizes()
        return bool(wanted) and all(there.get(name) == size for name, size in wanted.items())

    def _warning(self, landing: Landing) -> str:
        newest = f"{landing.newest}, {landing.age_s:.0f} s old" if landing.newest else "none at all"
        return (
            f"WARNING checkpoints do not land in S3: {landing.waiting} was written {landing.lag_s:.0f} s ago "
            f"(max_checkpoint_lag_s {self._max_lag_s:g}) and is not whole under {self._uri}; the newest there is "
            f"{newest}. An interruption now would lose what came after it: look at the job's role and at the bucket, "
            "or stop the job, which copies what it has at its end"
        )


@contextmanager
def watching(folder: CheckpointFolder | None, uri: str, max_lag_s: float) -> Iterator[None]:
    """Watch in the background; do nothing without a folder (on ranks other than the head) or an address."""
    if folder is None or not uri:
        yield
        return
    watch, stopped = CheckpointWatch(folder, uri, max_lag_s), threading.Event()

    def work() -> None:
        while not stopped.wait(PERIOD_S):
            watch.tell()

    thread = threading.Thread(target=work, name="checkpoint-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
