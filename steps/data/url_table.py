"""The url table: parquet with a column of addresses and one of captions.

Reads one parquet file or all of a folder, in the order of their names, through fsspec; writes nothing. The table is
streamed: it may be larger than memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from steps.errors import StepError

URL, CAPTION = "url", "caption"
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class TableSlice:
    """The rows of one shard."""

    index: int
    """Number of the shard."""
    first_row: int
    """Row of the table with which it begins."""
    urls: list[str | None]
    """One for each row."""
    captions: list[str | None]
    """One for each row."""


class UrlTable:
    """Rows of addresses and captions, in a fixed order."""

    def __init__(self, uri: str, url_column: str, caption_column: str, max_rows: int = 0) -> None:
        """Open the table; `max_rows` of 0 are all.

        Raises StepError where there is no parquet file, or one lacks a column.
        """
        self.uri, self._columns, self._max_rows = uri, (url_column, caption_column), max_rows
        self._files, root = fsspec.core.url_to_fs(uri)
        self._paths = self._find(root)
        hasher = hashlib.sha256()
        self.rows = 0
        for path in self._paths:
            footer = self._footer(path)
            hasher.update(f"{path.rsplit('/', 1)[-1]}\n{footer.num_rows}\n{footer.serialized_size}\n".encode())
            hasher.update(repr(footer.to_dict()).encode())
            self.rows += footer.num_rows
        if max_rows:
            self.rows = min(self.rows, max_rows)
        if not self.rows:
            raise StepError(f"url_table: {uri} has no rows")
        self.digest = hasher.hexdigest()
        """Of the files' footers: sizes, statistics and places of all their columns."""

    def shards(self, samples_per_shard: int) -> Iterator[TableSlice]:
        """Yield the table in slices of `samples_per_shard` rows; the last one may be shorter."""
        urls: list[str | None] = []
        captions: list[str | None] = []
        index = 0
        for batch in self._batches(self._columns):
            urls += batch.column(0).to_pylist()
            captions += batch.column(1).to_pylist()
            while len(urls) >= samples_per_shard:
                yield _slice(index, samples_per_shard, urls, captions)
                index += 1
                urls, captions = urls[samples_per_shard:], captions[samples_per_shard:]
        if urls:
            yield _slice(index, samples_per_shard, urls, captions)

    def duplicates(self) -> npt.NDArray[np.int64]:
        """Return the rows, ascending, whose url stands in an earlier row. Takes 16 bytes of memory for each row."""
        hashes = np.empty(self.rows, np.uint64)
        row = 0
        for batch in self._batches(self._columns[:1]):
            for url in batch.column(0).to_pylist():
                hashes[row] = xxhash.xxh3_64_intdigest((url or "").strip().encode())
                row += 1
        order = np.argsort(hashes, kind="stable")
        same = hashes[order[1:]] == hashes[order[:-1]]
        rows: npt.NDArray[np.int64] = np.sort(order[1:][same])
        return rows

    def _find(self, root: str) -> list[str]:
        try:
            if not self._files.isdir(root):
                return [root] if self._files.exists(root) else self._missing()
            return sorted(path for path in self._files.find(root) if path.endswith(".parquet")) or self._missing()
        except PermissionError as error:
            raise StepError(f"url_table: {self.uri} cannot be read: {error}") from None

    def _missing(self) -> list[str]:
        raise StepError(f"url_table: no parquet file at {self.uri}")

    def _footer(self, path: str) -> Any:
        with self._open(path) as stream:
            try:
                file = pq.ParquetFile(stream)
            except pa.ArrowInvalid as error:
                raise StepError(f"url_table: {path} is not parquet: {str(error)[:100]}") from None
            names = file.schema_arrow.names
            for column in self._columns:
                if column not in names:
                    raise StepError(f"url_table: {path} has no column {column!r}; it has {', '.join(names)}")
            return file.metadata

    def _batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with the columns in the order asked for, up to `rows` rows."""
        left = self.rows
        for path in self._paths:
            with self._open(path) as stream:
                for batch in pq.ParquetFile(stream).iter_batches(_BATCH_ROWS, columns=list(columns)):
                    if not left:
                        return
                    part = batch.select(list(columns)).slice(0, min(left, batch.num_rows))
                    left -= part.num_rows
                    yield part

    def _open(self, path: str) -> BinaryIO:
        stream: BinaryIO = self._files.open(path, "rb")
        return stream


def _slice(index: int, rows: int, urls: list[str | None], captions: list[str | None]) -> TableSlice:
    return TableSlice(index, index * rows, urls[:rows], captions[:rows])
