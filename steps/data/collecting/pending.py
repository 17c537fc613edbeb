"""Which rows are to be fetched next, and in which shards.

First those that never were, then those that laxer limits may let pass, then those that failed for a reason that can
pass. Reads the url table; writes nothing. What is next is a function of the table, the settings and the shards that are
there, and each shard but the last of its kind has the same number of rows: so a broken download goes on where it was,
and ends with the same shards.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from steps.data.collecting.fates import Mask, RowFates, Rows
from steps.data.tables.url_table import TableSlice, UrlTable


@dataclass(frozen=True, eq=False)
class Pending:
    """Rows to be fetched together."""

    rows: Rows
    """Of the table, ascending."""
    first_number: int
    """The shards that they make have at least this number."""

    def is_same(self, other: "Pending") -> bool:
        """Return whether these are the same rows, for the same reason."""
        return self.first_number == other.first_number and np.array_equal(self.rows, other.rows)


def next_pending(state: RowFates, wanted: Mask, former_end: int, top_up: int) -> Pending | None:
    """Return what is to be fetched next, or None; shards below `former_end` were made under other limits."""
    untried = wanted & (state.tries == 0)
    if untried.any():
        return Pending(np.flatnonzero(untried), 0)
    reopened = wanted & state.ended_in(state.fates.is_reopened)
    if reopened.any():
        return Pending(np.flatnonzero(reopened), former_end)
    failed = wanted & state.ended_in(state.fates.may_pass)
    for level in range(1, top_up + 1):
        again = failed & (state.tries == level)
        if again.any():
            is_earlier = state.earlier_tries < level
            later = state.fates.numbers[~is_earlier]
            # A shard belongs to the level of the rows in it that were fetched most often.
            earlier = np.setdiff1d(state.fates.numbers[is_earlier], later)
            return Pending(np.flatnonzero(again), int(earlier.max()) + 1 if len(earlier) else 0)
    return None


def tasks(one: Pending, table: UrlTable, taken: Collection[int], rows_per_shard: int) -> Iterator[TableSlice]:
    """Yield the shards of these rows; `taken` are the numbers of the shards that are there."""
    numbers = (number for number in count(one.first_number) if number not in taken)
    for columns in _selected(table, one.rows, rows_per_shard):
        urls, captions, *others = columns
        named = dict(zip(table.others, others, strict=True))
        yield TableSlice(next(numbers), 0, urls, captions, named)


def _selected(table: UrlTable, rows: Rows, size: int) -> Iterator[list[list[Any]]]:
    held: list[list[Any]] = [[], [], *([] for _ in table.others)]
    for part in table.shards(size):
        columns: tuple[list[Any], ...] = (part.urls, part.captions, *part.others.values())
        first, last = np.searchsorted(rows, (part.first_row, part.first_row + len(part.urls)))
        for row in (rows[first:last] - part.first_row).tolist():
            for column, values in zip(held, columns, strict=True):
                column.append(values[row])
        if len(held[0]) >= size:
            yield [column[:size] for column in held]
            held = [column[size:] for column in held]
    if held[0]:
        yield held
