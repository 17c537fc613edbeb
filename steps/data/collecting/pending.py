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

from steps.data.collecting.parts import RowBytes
from steps.data.collecting.standing import FAILED, REOPENED, UNTRIED, TableStanding
from steps.data.tables.url_table import TableSlice, UrlTable


@dataclass(frozen=True)
class Pending:
    """Rows to be fetched together, for the same reason."""

    states: RowBytes
    state: int
    """That of the rows among all."""
    rows: int
    """How many there are."""
    first_number: int
    """The shards that they make have at least this number."""

    def is_same(self, other: "Pending") -> bool:
        """Return whether these are the same rows: a reason only loses rows."""
        return (self.state, self.rows, self.first_number) == (other.state, other.rows, other.first_number)


def next_pending(standing: TableStanding, former_end: int, top_up: int) -> Pending | None:
    """Return what is to be fetched next, or None; shards below `former_end` were made under other limits."""
    counts = standing.states.counts().tolist()
    for state in (UNTRIED, REOPENED, *range(FAILED + 1, min(FAILED + top_up, len(counts) - 1) + 1)):
        if counts[state]:
            # A shard belongs to the level of the rows in it that were fetched most often.
            most = standing.most_earlier
            earlier = np.flatnonzero((most >= 0) & (most < state - FAILED))
            first = former_end if state == REOPENED else int(earlier.max(initial=-1)) + 1
            return Pending(standing.states, state, counts[state], first)
    return None


def tasks(one: Pending, table: UrlTable, taken: Collection[int], rows_per_shard: int) -> Iterator[TableSlice]:
    """Yield the shards of these rows; `taken` are the numbers of the shards that are there."""
    numbers = (number for number in count(one.first_number) if number not in taken)
    for columns in _selected(table, one, rows_per_shard):
        urls, captions, *others = columns
        named = dict(zip(table.others, others, strict=True))
        yield TableSlice(next(numbers), 0, urls, captions, named)


def _selected(table: UrlTable, one: Pending, size: int) -> Iterator[list[list[Any]]]:
    held: list[list[Any]] = [[], [], *([] for _ in table.others)]
    for part in table.shards(size):
        columns: tuple[list[Any], ...] = (part.urls, part.captions, *part.others.values())
        states = one.states[part.first_row : part.first_row + len(part.urls)]
        for row in np.flatnonzero(states == one.state).tolist():
            for column, values in zip(held, columns, strict=True):
                column.append(values[row])
        if len(held[0]) >= size:
            yield [column[:size] for column in held]
            held = [column[size:] for column in held]
    if held[0]:
        yield held
