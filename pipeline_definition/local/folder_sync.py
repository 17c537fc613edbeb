"""A folder that is kept in S3 while a job writes to it: checkpoints and continuous outputs.

Files reach S3 in the order in which they were written: no manifest before its data. Nothing is deleted in S3.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline_definition.local.object_store import ObjectStore
from pipeline_definition.local.storage import fetch_prefix

# A file's time comes from the kernel's coarse clock: up to one tick behind.
_CLOCK_TICK_NS = 20_000_000
_Version = tuple[int, int, int]  # when it was written in ns, size in bytes, inode


class FolderSync:
    def __init__(self, store: ObjectStore, folder: Path, uri: str) -> None:
        self._store, self._folder, self._uri = store, folder, uri.rstrip("/")
        self._sent: dict[str, _Version] = {}

    @property
    def files(self) -> int:
        """How many files have reached S3, or came from there."""
        return len(self._sent)

    def fetch(self) -> None:
        """Copy the objects under the prefix into the folder."""
        fetch_prefix(self._store, self._uri, self._folder, required=False)
        self._sent = dict(self._scan())

    def push(self, final: bool = False) -> int:
        """Send what has changed, oldest first; return how many files. `final`: no process writes any more.

        Until then a file written after this scan began waits for the next: this one may have missed an older file.
        """
        began_ns = time.time_ns() - _CLOCK_TICK_NS
        changed = [(name, version) for name, version in self._scan() if self._sent.get(name) != version]
        changed.sort(key=lambda item: (item[1][0], item[0]))
        sent = 0
        for name, version in changed:
            is_sent = (final or version[0] <= began_ns) and self._send(name, version)
            if not is_sent and not final:
                break
            sent += 1
        return sent

    def _send(self, name: str, version: _Version) -> bool:
        """Send one file; return False when it has changed since the scan: a torn copy never reaches S3."""
        path = self._folder / name
        with self._store.staging() as staged, contextlib.suppress(FileNotFoundError):
            shutil.copyfile(path, staged)
            if _version(path) == version:
                self._store.put(f"{self._uri}/{name}", staged)
                self._sent[name] = version
                return True
        return False

    def _scan(self) -> Iterator[tuple[str, _Version]]:
        for root, _, names in os.walk(self._folder):
            for name in names:
                path = Path(root, name)
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(self._folder).as_posix(), _version(path)


def _version(path: Path) -> _Version:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


@contextlib.contextmanager
def pushing(every_s: float, syncs: Sequence[FolderSync]) -> Iterator[Callable[[], None]]:
    """Yield a function to call often: it pushes once every `every_s` seconds; what is left is pushed at the end."""
    next_s = time.monotonic() + every_s

    def tick() -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            for sync in syncs:
                sync.push()
            next_s = time.monotonic() + every_s

    try:
        yield tick
    finally:
        for sync in syncs:
            sync.push(final=True)
