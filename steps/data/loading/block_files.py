"""The files that blocks are read from: a folder (an FSx mount, a fast file mode channel, a disk) or a prefix in S3.

Reads shards, manifest and index; writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from params.s3 import SCHEME
from steps.data.latents.block import BlockError
from steps.data.storage import Storage


class BlockFiles(Protocol):
    """Files by name; several threads may read at once."""

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises OSError."""

    def read_into(self, name: str, offset: int, parts: Sequence[memoryview]) -> None:
        """Fill buffers, one after the other, with the bytes from `offset` on.

        Raises OSError, and BlockError where the file ends before.
        """


class FolderFiles:
    """Files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises OSError."""
        return Path(self._folder, name).read_bytes()

    def read_into(self, name: str, offset: int, parts: Sequence[memoryview]) -> None:
        """Fill buffers straight from the file: one call, where the file system does not answer in pieces."""
        pending = [part for part in parts if len(part)]
        descriptor = os.open(f"{self._folder}/{name}", os.O_RDONLY)
        try:
            while pending:
                count = os.preadv(descriptor, pending, offset)
                if count == 0:
                    raise BlockError(f"the file ends {sum(map(len, pending))} bytes too early")
                offset += count
                while pending and count >= len(pending[0]):
                    count -= len(pending.pop(0))
                if count:
                    pending[0] = pending[0][count:]
        finally:
            os.close(descriptor)


class ObjectFiles:
    """Objects under a prefix in S3, read by byte ranges."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, name: str) -> bytes:
        """Return a whole object. Raises OSError."""
        return self._storage.read(name)

    def read_into(self, name: str, offset: int, parts: Sequence[memoryview]) -> None:
        """Fill buffers from one ranged request."""
        wanted = sum(map(len, parts))
        content = memoryview(self._storage.read_range(name, offset, offset + wanted))
        if len(content) != wanted:
            raise BlockError(f"the object ends {wanted - len(content)} bytes too early")
        for part in parts:
            part[:] = content[: len(part)]
            content = content[len(part) :]


def open_files(location: str | Path) -> BlockFiles:
    """Return the files of a folder or an s3:// prefix; nothing is looked up yet."""
    if str(location).startswith(SCHEME):
        return ObjectFiles(Storage(str(location)))
    return FolderFiles(Path(location))
