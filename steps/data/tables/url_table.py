"""The url table: which pictures there are, with their captions and what else is known of them.

Reads it through row_files (tables of addresses) or, for pictures that one has already, picture_folder and
picture_tars. Writes nothing. It is streamed: it may be larger than memory. What leaves it went through the door of
text_column: texts are text, and a row that cannot be read is marked with its cause.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from params.programs import DownloadSettings
from steps.data.causes import Cause
from steps.data.tables.picture_folder import open_folder
from steps.data.tables.picture_tars import open_shards
from steps.data.tables.row_files import CAPTION, LOST, URL, TableFiles, open_files
from steps.data.tables.stored_rows import StoredRows
from steps.data.tables.text_column import WHY_NO_TEXT, ReadColumn, clean, is_list, only_ones, through
from steps.errors import StepError

_OPENERS: Final[dict[str, Callable[[str, DownloadSettings], TableFiles | StoredRows]]] = {
    "urls": open_files,
    "webdataset": open_shards,
    "pictures": open_folder,
}

Captions = str | list[str] | None
"""Of one picture: a list where all of several count."""


def _one(column: Any, first_row: int, settings: DownloadSettings) -> Any:
    """Return a caption of strings or lists, trimmed, for each row from `first_row` of the table on; null: none."""
    if pa.types.is_string(column.type):
        return clean(column)

    def chosen(row: int, captions: list[str]) -> str | None:
        place = 0
        if settings.captions == "random" and captions:
            place = xxhash.xxh3_64_intdigest(f"{settings.captions_seed} {row}".encode()) % len(captions)
        return captions[place] if captions else None

    return pa.array([chosen(row, captions) for row, captions in enumerate(_lists(column), first_row)], pa.string())


def _several(column: Any, first_row: int, settings: DownloadSettings) -> list[Captions]:
    if settings.captions == "all" and not pa.types.is_string(column.type):
        return [_captions(row) for row in _lists(column)]
    return list(_one(column, first_row, settings).to_pylist())


def joined(captions: Captions, further: list[str]) -> Captions:
    """Return captions with those of the same picture's other rows."""
    own = captions if isinstance(captions, list) else [captions] if captions else []
    return _captions(own + further)


def _captions(row: list[str]) -> Captions:
    distinct = list(dict.fromkeys(row))
    return distinct if len(distinct) > 1 else distinct[0] if distinct else None


def _lists(column: Any) -> Iterator[list[str]]:
    """Yield the captions of each row that say something."""
    texts = clean(column.flatten()).to_pylist()
    stop = 0
    for count in pc.fill_null(pc.list_value_length(column), 0).to_pylist():
        start, stop = stop, stop + count
        yield [text for text in texts[start:stop] if text]


@dataclass(frozen=True)
class TableSlice:
    """The rows of one shard."""

    index: int
    first_row: int
    """Row of the table with which it begins."""
    urls: list[str | None]
    captions: list[Captions]
    """One for each row; a list where a picture is stored with all of several."""
    others: Mapping[str, list[Any]] = field(default_factory=dict)
    """What further columns hold, by name."""


class UrlTable:
    """Rows of addresses and captions, in a fixed order."""

    def __init__(self, uri: str, settings: DownloadSettings, others: Mapping[str, str] = MappingProxyType({})) -> None:
        """Open a table; `others` are further columns and the settings that name them. StepError: what it lacks."""
        self._settings, max_rows = settings, settings.max_rows
        own = (settings.url_column, settings.caption_column)
        self._columns = own if settings.source == "urls" else (URL, CAPTION)
        self.url_column, self.caption_column = self._columns
        self._rows = _OPENERS[settings.source](uri, settings)
        self.rows = min(self._rows.rows, max_rows) if max_rows else self._rows.rows
        if not self.rows:
            raise StepError(f"url_table: {uri} has no rows")
        self.uri, self.digest, self.names = uri, self._rows.digest, self._rows.names
        self.oddities: Final = self._rows.oddities
        for name, setting in others.items():
            if name not in self.names:
                raise StepError(f"{setting}: {uri} has no column {name!r}; it has {', '.join(self.names)}")
            if self.names.count(name) > 1:
                raise StepError(f"{setting}: {uri} has several columns {name!r}; rename all but one")
        self.others = tuple(others)
        """Further columns that slices hold."""
        self.further: Callable[[int], list[str]] | None = None
        """Tells captions that belong to a row's picture and stand in other rows."""

    def shards(self, samples_per_shard: int) -> Iterator[TableSlice]:
        """Yield the table in slices of `samples_per_shard` rows; the last one may be shorter."""
        held: list[list[Any]] = [[], [], *([] for _ in self.others)]
        index = 0
        for row, _, columns in self._read(self.others):
            held[0] += columns[self.url_column].to_pylist()
            held[1] += _several(columns[self.caption_column], row, self._settings)
            for values, name in zip(held[2:], self.others, strict=True):
                values += columns[name].to_pylist()
            while len(held[0]) >= samples_per_shard:
                yield self._slice(index, samples_per_shard, [values[:samples_per_shard] for values in held])
                index += 1
                held = [values[samples_per_shard:] for values in held]
        if held[0]:
            yield self._slice(index, samples_per_shard, held)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches of up to `rows` rows: the columns asked for, and LOST as the last one."""
        names = [name for name in columns if name != LOST]
        for row, lost, values in self._read(names):
            values[self.caption_column] = _one(values[self.caption_column], row, self._settings)
            yield pa.record_batch({name: values[name] for name in names} | {LOST: lost})

    def _read(self, columns: Sequence[str]) -> Iterator[tuple[int, Any, dict[str, Any]]]:
        """Yield, of each batch, its first row, why rows are lost, and these columns besides addresses and captions."""
        names, row = list(dict.fromkeys([*columns, *self._columns])), 0
        for batch in self._rows.batches(names):
            if row == self.rows:
                return
            part = batch.slice(0, self.rows - row)
            lost, values = part.column(LOST), dict[str, Any]()
            for name in names:
                if name not in self._columns:
                    values[name] = through(part.column(name)).values
                    continue
                column = self._texts(part.column(name), name, row)
                is_marked = column.lost & np.asarray(lost.is_null())
                lost = pc.if_else(pa.array(is_marked), Cause.BAD_TEXT.value, lost)
                values[name] = column.values
            yield row, lost, values
            row += part.num_rows

    def _texts(self, stored: Any, name: str, first_row: int) -> ReadColumn:
        """Return addresses or captions, of which numbers are written out."""
        column = through(stored)
        values = column.values
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_finite(values), values, None)
        if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            return column._replace(values=values.cast(pa.string()))
        if name == self.url_column and is_list(column.values.type):
            column = only_ones(column)
        kind = column.values.type
        if not (pa.types.is_string(kind) or (is_list(kind) and pa.types.is_string(kind.value_type))):
            is_there = column.values.is_valid().to_numpy(zero_copy_only=False)
            column = ReadColumn(pa.nulls(len(stored), pa.string()), is_there)
        if column.lost.any():
            row = first_row + int(np.flatnonzero(column.lost)[0]) + 1
            self.oddities.note(Cause.BAD_TEXT, f"{self.uri} row {row}: {name} is no text ({WHY_NO_TEXT})")
        return column

    def _slice(self, index: int, size: int, held: list[list[Any]]) -> TableSlice:
        urls, captions, *others = held
        if self.further:
            captions = [joined(own, self.further(row)) for row, own in enumerate(captions, index * size)]
        return TableSlice(index, index * size, urls, captions, dict(zip(self.others, others, strict=True)))
