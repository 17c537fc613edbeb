"""Files under a prefix of S3 or in a folder, read within bounds.

Reads S3 through boto3, on AWS or on the local control plane alike, or the disk; writes nothing.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from params.s3 import split_uri, unless_missing

MAX_NAMES: Final = 200_000


class DataFiles(Protocol):
    """Files by name below one place."""

    def names(self) -> list[str]:
        """Return names in order, the first MAX_NAMES of them."""

    def read(self, name: str, start: int = 0, count: int | None = None, limit: int = 256 << 20) -> bytes | None:
        """Return `count` bytes from `start`, or all; None where there is no such file or more than `limit` bytes."""


class DataFolder:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return names in order; links are passed over."""
        names: list[str] = []
        for folder, folders, files in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = (Path(folder) / name for name in files)
            names += [path.relative_to(self._folder).as_posix() for path in paths if not path.is_symlink()]
            if len(names) >= MAX_NAMES:
                break
        return sorted(names)[:MAX_NAMES]

    def read(self, name: str, start: int = 0, count: int | None = None, limit: int = 256 << 20) -> bytes | None:
        """Return bytes of a file below the folder."""
        path = (self._folder / name).resolve()
        is_inside = path.is_relative_to(self._folder.resolve()) and path.is_file()
        if not is_inside or (path.stat().st_size if count is None else count) > limit:
            return None
        with path.open("rb") as file:
            file.seek(start)
            return file.read(limit if count is None else count)


class DataPrefix:
    """Objects under a prefix."""

    def __init__(self, client: Any, uri: str) -> None:
        """`client` is boto3's."""
        self._client = client
        self._bucket, key = split_uri(uri)
        self._prefix = key.rstrip("/") + "/" if key.strip("/") else ""

    def names(self) -> list[str]:
        """Return names in order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        keys = (item["Key"] for page in pages for item in page.get("Contents", ()))
        return [key[len(self._prefix) :] for key in islice(keys, MAX_NAMES)]

    def read(self, name: str, start: int = 0, count: int | None = None, limit: int = 256 << 20) -> bytes | None:
        """Return bytes of an object."""
        span = {} if count is None else {"Range": f"bytes={start}-{start + count - 1}"}
        if count is not None and count > limit:
            return None
        answer = unless_missing(self._client.get_object, Bucket=self._bucket, Key=self._prefix + name, **span)
        if answer is None:
            return None
        content: bytes = answer["Body"].read(limit + 1)
        return None if len(content) > limit else content
