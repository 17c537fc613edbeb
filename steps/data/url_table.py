"""The url table: which pictures there are, with their captions and what else is known of them.

Reads it through steps.data.row_files (parquet, CSV, TSV) or, for pictures that one has already,
steps.data.stored_pictures. Writes nothing. It is streamed: it may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from steps.data.row_files import CAPTION, URL, RowSource, open_files
from steps.data.stored_pictures import open_folder, open_shards
from steps.errors import StepError


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

    def __init__(self, uri: str, url_column: str, caption_column: str, max_rows: int = 0, source: str = "urls") -> None:
        """Open the table; `max_rows` of 0 are all. `source` as DownloadSettings.source has it.

        Raises StepError where there is none, or it lacks a column.
        """
        self._columns = (url_column, caption_column) if source == "urls" else (URL, CAPTION)
        self._rows = _open(uri, self._columns, source)
        self.rows = min(self._rows.rows, max_rows) if max_rows else self._rows.rows
        if not self.rows:
            raise StepError(f"url_table: {uri} has no rows")
        self.uri, self.digest, self.names = uri, self._rows.digest, self._rows.names

    @property
    def url_column(self) -> str:
        """Column of the addresses."""
        return self._columns[0]

    @property
    def caption_column(self) -> str:
        """Column of the captions."""
        return self._columns[1]

    def shards(self, samples_per_shard: int) -> Iterator[TableSlice]:
        """Yield the table in slices of `samples_per_shard` rows; the last one may be shorter."""
        urls: list[str | None] = []
        captions: list[str | None] = []
        index = 0
        for batch in self.batches(self._columns):
            urls += batch.column(0).to_pylist()
            captions += batch.column(1).to_pylist()
            while len(urls) >= samples_per_shard:
                yield _slice(index, samples_per_shard, urls, captions)
                index += 1
                urls, captions = urls[samples_per_shard:], captions[samples_per_shard:]
        if urls:
            yield _slice(index, samples_per_shard, urls, captions)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with the columns in the order asked for, up to `rows` rows."""
        left = self.rows
        for batch in self._rows.batches(columns):
            if not left:
                return
            part = batch.slice(0, min(left, batch.num_rows))
            left -= part.num_rows
            yield part


def _open(uri: str, columns: Sequence[str], source: str) -> RowSource:
    if source == "urls":
        return open_files(uri, columns)
    return open_shards(uri) if source == "webdataset" else open_folder(uri)


def _slice(index: int, rows: int, urls: list[str | None], captions: list[str | None]) -> TableSlice:
    return TableSlice(index, index * rows, urls[:rows], captions[:rows])
