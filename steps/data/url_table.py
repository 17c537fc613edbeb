"""The url table: which pictures there are, with their captions and what else is known of them.

Reads it through steps.data.row_files (parquet, CSV, TSV) or, for pictures that one has already,
steps.data.stored_pictures. Writes nothing. It is streamed: it may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
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
    others: Mapping[str, list[Any]] = field(default_factory=dict)
    """What further columns hold, by name."""


class UrlTable:
    """Rows of addresses and captions, in a fixed order."""

    def __init__(
        self,
        uri: str,
        url_column: str,
        caption_column: str,
        max_rows: int = 0,
        source: str = "urls",
        others: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Open the table; `max_rows` of 0 are all. `source` as DownloadSettings.source has it.

        `others` are further columns, and the settings that name them. Raises StepError where there is no table, or it
        lacks a column.
        """
        self._columns = (url_column, caption_column) if source == "urls" else (URL, CAPTION)
        self._rows = _open(uri, self._columns, source)
        self.rows = min(self._rows.rows, max_rows) if max_rows else self._rows.rows
        if not self.rows:
            raise StepError(f"url_table: {uri} has no rows")
        self.uri, self.digest, self.names = uri, self._rows.digest, self._rows.names
        for name, setting in others.items():
            if name not in self.names:
                raise StepError(f"{setting}: {uri} has no column {name!r}; it has {', '.join(self.names)}")
        self.others = tuple(others)
        """Further columns that slices hold."""

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
        held: list[list[Any]] = [[] for _ in (*self._columns, *self.others)]
        index = 0
        for batch in self.batches((*self._columns, *self.others)):
            for values, column in zip(held, batch.columns, strict=True):
                values += column.to_pylist()
            while len(held[0]) >= samples_per_shard:
                yield self._slice(index, samples_per_shard, [values[:samples_per_shard] for values in held])
                index += 1
                held = [values[samples_per_shard:] for values in held]
        if held[0]:
            yield self._slice(index, samples_per_shard, held)

    def _slice(self, index: int, size: int, held: list[list[Any]]) -> TableSlice:
        urls, captions, *others = held
        return TableSlice(index, index * size, urls, captions, dict(zip(self.others, others, strict=True)))

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
