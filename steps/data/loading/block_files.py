"""The files that blocks are read from: a folder (an FSx mount, a fast file mode channel, a disk) or a prefix in S3.

Reads shards, manifest and index; writes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from steps.data.latents.block import BlockError
from steps.data.storage import Storage


class BlockFiles:
    """Files by name; several threads may read at once."""

    def __init__(self, location: str | Path) -> None:
        """Use a folder or an s3:// prefix; nothing is looked up yet."""
        self._location, self._storage = location, Storage(str(location))

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises OSError."""
        return self._storage.read(name)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from `offset` on: one request, unless a file system answers in pieces.

        Raises OSError, and BlockError where the file ends before.
        """
        if self._storage.is_object_store:
            content = self._storage.read_range(name, offset, offset + len(buffer))
            buffer[: len(content)] = content
            buffer = buffer[len(content) :]
        else:
            descriptor = os.open(f"{self._location}/{name}", os.O_RDONLY)
            try:
                while buffer and (count := os.preadv(descriptor, [buffer], offset)):
                    buffer, offset = buffer[count:], offset + count
            finally:
                os.close(descriptor)
        if buffer:
            raise BlockError(f"the file ends {len(buffer)} bytes too early")
