"""Screens the url table before anything is fetched: which rows the filters leave, and which are there twice.

Reads the table once, streaming; writes nothing. The filters are those of params/filters/.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from params.filters import FILTERS, Filter, TableColumn
from params.programs import DownloadSettings
from steps.data.causes import Cause
from steps.data.collecting.deduplication import repeated
from steps.data.collecting.fates import Keys, Mask, Rows, row_key
from steps.data.tables.row_files import BATCH_ROWS, CAPTION, LOST
from steps.data.tables.score_column import ScoreColumn
from steps.data.tables.url_table import UrlTable
from steps.errors import StepError

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

    fates: npt.NDArray[np.uint8]
    """0: to be fetched; else the number of the cause, from 1, in `causes`."""
    causes: tuple[str, ...]
    """In the order in which they were applied."""
    keys: Keys
    """By which the rows are known (steps.data.collecting.fates)."""

    @property
    def is_wanted(self) -> Mask:
        """Whether a row is to become a sample."""
        return np.asarray(self.fates == 0)

    def cause(self, row: int) -> str:
        """Return why a row is left out."""
        return str(self.causes[self.fates[row] - 1])

    def counts(self) -> Counter[str]:
        """Return how many rows are left out, by cause."""
        numbers = np.bincount(self.fates, minlength=len(self.causes) + 1).tolist()
        return +Counter(dict(zip(map(str, self.causes), numbers[1:], strict=True)))


def screen(table: UrlTable, settings: DownloadSettings) -> Screening:
    """Decide about every row. Takes 25 bytes of memory for each.

    Raises StepError where a threshold is set and the table lacks the column.
    """
    # Causes by which the table's reader gives a row up.
    unreadable = (Cause.BAD_ROW, Cause.BAD_TEXT, Cause.TRUNCATED)
    checks = [_Check(cause, (LOST,), partial(_is, cause)) for cause in unreadable]
    checks.append(_Check(Cause.NO_URL, (table.url_column,), _is_blank))
    if not settings.keep_uncaptioned:
        checks.append(_Check(Cause.NO_CAPTION, (table.caption_column,), _is_blank))
    checks += _checks(settings, table)
    causes = (*(one.cause for one in checks), Cause.DUPLICATE)
    by_caption = settings.captions != "all"
    known_by = (table.url_column, table.caption_column)
    columns = list(dict.fromkeys([*known_by, *(column for one in checks for column in one.columns)]))
    fates = np.zeros(table.rows, np.uint8)
    hashes, keys = np.empty(table.rows, np.uint64), np.empty(table.rows, np.uint64)
    first = 0
    for batch in table.batches(columns):
        part = slice(first, first + batch.num_rows)
        for number, one in enumerate(checks, 1):
            drops = one.drops(*map(batch.column, one.columns))
            fates[part][drops & (fates[part] == 0)] = number
        urls, captions = (batch.column(column).to_pylist() for column in known_by)
        for row, (url, caption) in enumerate(zip(urls, captions, strict=True), first):
            hashes[row] = xxhash.xxh3_64_intdigest((url or "").strip().encode())
            keys[row] = row_key(url, caption if by_caption else None)
        first += batch.num_rows
    for score in (score for one in checks for score in one.scores):
        score.finish()
    wanted = np.flatnonzero(fates == 0)
    again = wanted[repeated(hashes[wanted])]
    if not by_caption:
        table.further = further_captions(table, hashes, wanted, again)
    fates[again] = len(causes)
    return Screening(fates, causes, keys)


def further_captions(table: UrlTable, hashes: Keys, wanted: Rows, again: Rows) -> dict[int, list[str]]:
    """Return the captions of rows whose url stands further up, by the row of the `wanted` where it stands first."""
    of_hash, first_places = np.unique(hashes[wanted], return_index=True)
    firsts = wanted[first_places[np.searchsorted(of_hash, hashes[again])]]
    first_of = dict(zip(again.tolist(), firsts.tolist(), strict=True))
    further: dict[int, list[str]] = {}
    for part in table.shards(BATCH_ROWS) if first_of else ():
        for row, captions in enumerate(part.captions, part.first_row):
            if row in first_of and captions:
                further.setdefault(first_of[row], []).extend([captions] if isinstance(captions, str) else captions)
    return further


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
