"""Hands out pictures that one has already, as a Fetcher does the web's: whole and bounded.

Reads a folder of pictures, WebDataset shards or parquet files of pictures; writes nothing. Its addresses are those of
picture_folder, picture_tars and parquet_files, so that filters, shards and the ledger work as they do for the web's.
"""

import gzip
import re
import threading
import zlib
from typing import Final

from steps.data.causes import Cause, FetchError
from steps.data.pictures.picture_format import refusal
from steps.data.storage import Storage
from steps.data.tables.parquet_files import PLACE, ParquetPictures
from steps.data.tables.picture_tars import BLOCK_BYTES

# Rows are asked for in order, but by many threads at once: what was just unpacked is kept.
WINDOW_BYTES: Final = 128 << 20
_TAR_PLACE = re.compile(r"(.+\.(?:tar|tar\.gz|tgz))#([0-9]+)-([0-9]+)", re.IGNORECASE)


class StoredPictures:
    """Hands out stored pictures. Safe for threads."""

    def __init__(self, uri: str, max_body_bytes: int) -> None:
        self._storage, self._max_bytes = Storage(uri), max_body_bytes
        self._parquet = ParquetPictures(uri)
        self._lock = threading.Lock()
        self._unpacked: _Unpacked | None = None

    def fetch(self, address: str) -> bytes:
        try:
            content = self._read(address)
        except FileNotFoundError:
            raise FetchError(Cause.MISSING) from None
        if cause := refusal(content):
            raise FetchError(cause)
        return content

    def _read(self, address: str) -> bytes:
        if place := PLACE.fullmatch(address):
            content = self._parquet.read(place[1], int(place[2]), int(place[3]))
            if content is None:
                raise FetchError(Cause.MISSING)
        elif place := _TAR_PLACE.fullmatch(address):
            start = int(place[2])
            content = self._read_range(place[1], start, min(int(place[3]), start + self._max_bytes + 1))
        else:
            with self._storage.open(address, BLOCK_BYTES) as stream:
                content = stream.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise FetchError(Cause.BODY_TOO_LARGE)
        return content

    def _read_range(self, name: str, start: int, stop: int) -> bytes:
        if name.lower().endswith(".tar"):
            return self._storage.read_range(name, start, stop)
        with self._lock:
            if self._unpacked is None or self._unpacked.name != name or start < self._unpacked.start:
                self._unpacked = _Unpacked(self._storage, name)
            return self._unpacked.read(start, stop)


class _Unpacked:
    """A compressed tar, unpacked from front to back; the last of it is kept."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.name, self.start = name, 0
        self._stream = gzip.GzipFile(fileobj=storage.open(name, BLOCK_BYTES))
        self._kept = bytearray()

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop), or as many as there are; `start` is not before `self.start`."""
        while self.start + len(self._kept) < stop:
            try:
                content = self._stream.read1(BLOCK_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                content = b""
            if not content:
                break
            self._kept += content
        surplus = min(len(self._kept) - WINDOW_BYTES, start - self.start)
        if surplus > 0:
            del self._kept[:surplus]
            self.start += surplus
        return bytes(self._kept[start - self.start : stop - self.start])
