"""A prefix of an object store, or a folder: written straight to through fsspec, past any local disk."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

import fsspec

from params.files import write_bytes

T = TypeVar("T")

READ_TRIES: Final = 4
BACK_OFF_S: Final = 0.5


class Storage:
    """Objects under one prefix, by name."""

    def __init__(self, uri: str) -> None:
        """Open `s3://bucket/prefix` or a path. Nothing is looked up yet."""
        self.uri = uri.rstrip("/")
        self._files, self._root = fsspec.core.url_to_fs(self.uri, use_listings_cache=False)

    def read(self, name: str) -> bytes:
        """Return an object. Raises FileNotFoundError."""
        return _patiently(lambda: cast(bytes, self._files.cat_file(self._path(name))))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        return _patiently(lambda: cast(bytes, self._files.cat_file(self._path(name), start=start, end=stop)))

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill a buffer with the bytes from `offset` on, as far as there are any; return how many there were."""
        if self.is_object_store:
            content = self.read_range(name, offset, offset + len(buffer))
            buffer[: len(content)] = content
            return len(content)
        count = 0
        with Path(self._path(name)).open("rb", buffering=0) as file:
            file.seek(offset)
            while count < len(buffer) and (more := file.readinto(buffer[count:])):
                count += more
        return count

    def open(self, name: str, block_bytes: int = 16 << 20) -> BinaryIO:
        """Open an object to read it from front to back, with its size known."""
        path = self._path(name)
        stream = _patiently(lambda: self._files.open(path, "rb", block_size=block_bytes, cache_type="readahead"))
        if self.is_object_store:
            fetch = stream.cache.fetcher
            stream.cache.fetcher = lambda start, stop: _patiently(lambda: fetch(start, stop))
        return cast(BinaryIO, stream)

    def write(self, name: str, content: bytes) -> None:
        """Write an object whole: readers see all of it or nothing."""
        path = self._path(name)
        if self.is_object_store:
            self._files.pipe_file(path, content)
            return
        write_bytes(Path(path), content)

    def write_checked(self, name: str, content: bytes) -> None:
        """Write an object, and look whether it is there. Raises OSError where it did not arrive whole."""
        self.write(name, content)
        if self.size(name) != len(content):
            raise OSError(f"{self.uri}/{name} did not arrive whole")

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes, or None where there is none."""
        try:
            return _patiently(lambda: int(self._files.info(self._path(name))["size"]))
        except FileNotFoundError:
            return None

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object directly under the prefix, by name."""
        try:
            entries = _patiently(lambda: self._files.ls(self._root, detail=True, refresh=True))
        except FileNotFoundError:
            return {}
        return {entry["name"].rsplit("/", 1)[-1]: int(entry["size"]) for entry in entries if entry["type"] == "file"}

    def read_many(self, names: list[str]) -> dict[str, bytes]:
        """Return objects, many at a time."""
        if not names:
            return {}
        paths = {self._path(name): name for name in names}
        contents = _patiently(lambda: self._files.cat(list(paths)))
        return {paths[path]: content for path, content in contents.items()}

    def fetch(self, folder: Path) -> None:
        """Copy everything under the prefix into a new folder. Raises FileNotFoundError where there is nothing."""
        _patiently(lambda: self._files.get(f"{self._root}/", f"{folder}/", recursive=True))

    def delete(self, name: str) -> None:
        """Remove an object if it is there."""
        if self.size(name) is not None:
            self._files.rm_file(self._path(name))

    def make(self) -> None:
        """Make the folder; a prefix needs none."""
        if not self.is_object_store:
            self._files.makedirs(self._root, exist_ok=True)

    def abort_uploads(self) -> int:
        """Give up multipart uploads that a killed job left behind, which are billed for ever; return how many."""
        if not self.is_object_store:
            return 0
        bucket, _, prefix = self._root.partition("/")
        answer: dict[str, Any] = self._files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        uploads = answer.get("Uploads", [])
        for upload in uploads:
            self._files.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(uploads)

    @property
    def is_object_store(self) -> bool:
        """Whether objects appear whole, and folders do not exist."""
        return hasattr(self._files, "call_s3")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _patiently(read: Callable[[], T]) -> T:
    """Read again after an error that may pass: a 503 past the client's own retries, a connection that broke."""
    for attempt in range(READ_TRIES - 1):
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError:
            time.sleep(BACK_OFF_S * 2**attempt)
    return read()
