"""The files that blocks are read from: a folder (an FSx mount, a fast file mode channel, a disk) or a prefix in S3.

Reads shards, manifest and index; writes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from params.s3 import SCHEME
from steps.data.latents.block import BlockError
from steps.data.storage import Storage


class FolderFiles:
    """Files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises OSError."""
        return Path(self._folder, name).read_bytes()

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from `offset` on: one call, unless the file system answers in pieces.

        Raises OSError, and BlockError where the file ends before.
        """
        descriptor = os.open(f"{self._folder}/{name}", os.O_RDONLY)
        try:
            while buffer:
                count = os.preadv(descriptor, [buffer], offset)
                if count == 0:
                    raise BlockError(f"the file ends {len(buffer)} bytes too early")
                buffer, offset = buffer[count:], offset + count
        finally:
            os.close(descriptor)


class ObjectFiles:
    """Objects under a prefix in S3, read by byte ranges."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, name: str) -> bytes:
        """Return a whole object. Raises OSError."""
        return self._storage.read(name)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from one ranged request. Raises OSError, and BlockError where the object ends before."""
        content = self._storage.read_range(name, offset, offset + len(buffer))
        if len(content) != len(buffer):
            raise BlockError(f"the object ends {len(buffer) - len(content)} bytes too early")
        buffer[:] = content


BlockFiles = FolderFiles | ObjectFiles
"""Files by name; several threads may read at once."""


def open_files(location: str | Path) -> BlockFiles:
    """Return the files of a folder or an s3:// prefix; nothing is looked up yet."""
    if str(location).startswith(SCHEME):
        return ObjectFiles(Storage(str(location)))
    return FolderFiles(Path(location))
