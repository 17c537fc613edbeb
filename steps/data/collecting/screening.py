"""Screens the url table before anything is fetched: which rows the filters leave, and which are there twice.

Reads the table once, streaming; writes temporary files (steps.data.collecting.parts), so that memory does not grow with
the table. The filters are those of params/filters/.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from params.filters import FILTERS, Filter, TableColumn
from params.programs import DownloadSettings
from steps.data.causes import Cause
from steps.data.collecting.fates import NO_URL_HASH, row_keys
from steps.data.collecting.parts import PART_BITS, Records, RowBytes, SpilledParts, hash_shift, shared
from steps.data.collecting.spread import spread
from steps.data.tables.row_files import BATCH_ROWS, CAPTION, LOST
from steps.data.tables.score_column import ScoreColumn
from steps.data.tables.url_table import UrlTable
from steps.errors import StepError

Mask = npt.NDArray[np.bool_]

ROW: Final = np.dtype([("url", "u8"), ("key", "u8"), ("row", "i8"), ("fate", "u1")])
"""Of the table: the hash of its address, the key by which it is known (steps.data.collecting.fates), its number."""
FURTHER: Final = np.dtype([("row", "i8"), ("first", "i8")])
"""A row whose url stands further up, and the row where it stands first."""
# What `score_columns` may name.
SCORES: Final = dict.fromkeys(column.name for one in FILTERS for column in one.columns if column.name != CAPTION)


@dataclass(frozen=True)
class _Check:
    cause: str
    columns: tuple[str, ...]
    drops: Callable[..., Mask]
    """Columns of a batch to the rows that it takes out."""
    scores: tuple[ScoreColumn, ...] = ()
    """Those of the columns that hold numbers."""


@dataclass(frozen=True, eq=False)
class Screening:
    """The fate of every row of a table, as far as the table decides it."""

    fates: RowBytes
    """0: to be fetched; else the number of the cause, from 1, in `causes`."""
    causes: tuple[str, ...]
    """In the order in which they were applied."""
    rows: SpilledParts
    """ROW of all rows with an address, in the order of the table, by the hash of the address."""


def screen(table: UrlTable, settings: DownloadSettings) -> Screening:
    """Decide about every row. Takes the same memory whatever their number, and 26 bytes on disk for each.

    Raises StepError where a threshold is set and the table lacks the column.
    """
    # Causes by which the table's reader gives a row up.
    unreadable = (Cause.BAD_ROW, Cause.BAD_TEXT, Cause.TRUNCATED)
    checks = [_Check(cause, (LOST,), partial(_is, cause)) for cause in unreadable]
    checks.append(_Check(Cause.NO_URL, (table.url_column,), _is_blank))
    if not settings.keep_uncaptioned:
        checks.append(_Check(Cause.NO_CAPTION, (table.caption_column,), _is_blank))
    checks += _checks(settings, table)
    screening = Screening(
        RowBytes(table.rows),
        (*(one.cause for one in checks), Cause.DUPLICATE),
        SpilledParts(ROW, hash_shift(table.rows)),
    )
    by_caption = settings.captions != "all"
    _judge(table, checks, by_caption, screening)
    for score in (score for one in checks for score in one.scores):
        score.finish()
    again = _mark_duplicates(screening)
    if not by_caption:
        table.further = further_captions(table, again)
    return screening


def _judge(table: UrlTable, checks: Sequence[_Check], by_caption: bool, screening: Screening) -> None:
    """Note what the checks say of each row."""
    columns = [table.url_column, table.caption_column, *(column for one in checks for column in one.columns)]
    first = 0
    for batch in table.batches(list(dict.fromkeys(columns))):
        rows = np.empty(batch.num_rows, ROW)
        rows["row"] = np.arange(first, first + batch.num_rows)
        fates = np.zeros(batch.num_rows, np.uint8)
        for number, one in enumerate(checks, 1):
            fates[one.drops(*map(batch.column, one.columns)) & (fates == 0)] = number
        rows["fate"] = fates
        screening.fates[first : first + batch.num_rows][:] = fates
        captions = batch.column(table.caption_column) if by_caption else None
        rows["url"], rows["key"] = row_keys(batch.column(table.url_column), captions)
        # However many rows have no address, they are in no part's way.
        rows = rows[rows["url"] != NO_URL_HASH]
        screening.rows.add(rows["url"], rows)
        first += batch.num_rows


def _mark_duplicates(screening: Screening) -> SpilledParts:
    """Mark rows whose url stands further up; return FURTHER of them, by row."""
    again = SpilledParts(FURTHER)
    number = len(screening.causes)
    for index, (rows, found) in enumerate(spread(_repeats, ((rows, number) for rows in screening.rows))):
        screening.rows.put(index, rows)
        again.add(found["row"], found)
    for found, (start, fates) in zip(again, screening.fates.windows(), strict=False):
        fates[found["row"] - start] = len(screening.causes)
    return again


def _repeats(rows: Records, number: int) -> tuple[Records, Records]:
    """Return ROW of a part, those marked with a fate whose url stands further up, and FURTHER of these."""
    rows = np.array(rows)
    wanted = np.flatnonzero(rows["fate"] == 0)
    several = wanted[shared(rows["url"][wanted])]
    several = several[np.argsort(rows["url"][several], kind="stable")]
    urls = rows["url"][several]
    is_again = np.zeros(len(several), np.bool_)
    is_again[1:] = urls[1:] == urls[:-1]
    first = np.maximum.accumulate(np.where(is_again, 0, np.arange(len(several))))
    rows["fate"][several[is_again]] = number
    found = np.empty(int(is_again.sum()), FURTHER)
    found["row"], found["first"] = rows["row"][several[is_again]], rows["row"][several[first[is_again]]]
    return rows, found


def further_captions(table: UrlTable, again: SpilledParts) -> Callable[[int], list[str]]:
    """Return what tells, of a row, the captions of those FURTHER rows whose url stands there first.

    They lie in a temporary database on disk.
    """
    captions = sqlite3.connect("")
    captions.execute("CREATE TABLE further (first INTEGER, caption TEXT)")
    index, first_of = -1, dict[int, int]()
    for part in table.shards(BATCH_ROWS) if any(map(len, again)) else ():
        if part.first_row >> PART_BITS != index:
            index = part.first_row >> PART_BITS
            first_of = dict(again.part(index).tolist())
        rows = ((first_of.get(row), of) for row, of in enumerate(part.captions, part.first_row))
        found = [(first, [of] if isinstance(of, str) else of or []) for first, of in rows if first is not None]
        several = [(first, caption) for first, texts in found for caption in texts]
        captions.executemany("INSERT INTO further VALUES (?, ?)", several)
    captions.execute("CREATE INDEX of_first ON further (first)")
    query = "SELECT caption FROM further WHERE first = ? ORDER BY rowid"
    return lambda row: [caption for (caption,) in captions.execute(query, (row,))]


def _checks(settings: DownloadSettings, table: UrlTable) -> Iterator[_Check]:
    """Yield the filters that the settings ask for. Raises StepError where the table lacks a column."""
    columns = _Columns(settings.score_columns, table)
    for one in sorted((kind.from_settings(settings) for kind in FILTERS), key=lambda one: one.measured):
        if one.is_on and (names := columns.named_for(one)):
            readers = [_reader(column, name, one) for column, name in zip(one.columns, names, strict=True)]
            scores = tuple(reader for reader in readers if isinstance(reader, ScoreColumn))
            yield _Check(one.cause, names, partial(_drops, one, readers), scores)


def _drops(one: Filter, readers: Sequence[Callable[[Any], Any]], *columns: Any) -> Mask:
    values = [reader(column) for reader, column in zip(readers, columns, strict=True)]
    dropped: Mask = ~np.asarray(one.keeps(*values), np.bool_)
    # Where the table does not know, the picture will tell.
    return dropped & np.all([numbers > 0 for numbers in values], axis=0) if one.measured else dropped


def _reader(column: TableColumn, name: str, one: Filter) -> Callable[[Any], Any]:
    """Return what turns a column into what the filter wants (TableColumn.kind)."""
    if column.kind == "number":
        return ScoreColumn(column, name, is_needed=not one.measured)
    return _texts if column.kind == "text" else _lengths


def _texts(batch: Any) -> Any:
    return pc.fill_null(batch.cast(pa.string()), "")


def _lengths(batch: Any) -> Any:
    return pc.utf8_length(_texts(batch)).to_numpy()


class _Columns:
    """Finds the columns of scores in a table."""

    def __init__(self, named: tuple[str, ...], table: UrlTable) -> None:
        self._names = ", ".join(table.names)
        self._by_lower = {name.lower(): name for name in reversed(table.names)}
        self._named = {CAPTION: table.caption_column}
        for pair in named:
            score, equals, column = pair.partition("=")
            if not equals or score not in SCORES:
                raise StepError(f"score_columns: {pair!r} is not SCORE=COLUMN with one of {', '.join(SCORES)}")
            if column not in table.names:
                raise StepError(f"score_columns: the url table has no column {column!r}; it has {self._names}")
            self._named[score] = column

    def named_for(self, one: Filter) -> tuple[str, ...]:
        """Return the columns of a filter; nothing where it does without. Raises StepError where one is not there."""
        names = tuple(self._find(column) for column in one.columns)
        if all(names):
            return names
        if one.measured:
            return ()
        missing = one.columns[names.index("")]
        raise StepError(
            f"url_table: a filter on {missing.name} is set, but there is no column for it "
            f"({', '.join(missing.published_as)}); name it as score_columns={missing.name}=COLUMN: "
            f"the table has {self._names}"
        )

    def _find(self, column: TableColumn) -> str:
        known = (self._by_lower[name] for name in column.published_as if name in self._by_lower)
        return self._named.get(column.name) or next(known, "")


def _is(cause: str, lost: Any) -> Mask:
    return np.asarray(pc.fill_null(pc.equal(lost, cause), False))


def _is_blank(texts: Any) -> Mask:
    return np.asarray(pc.equal(pc.utf8_trim_whitespace(pc.fill_null(texts, "")), ""))
