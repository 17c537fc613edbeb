"""Rounds of a download: the first fetches every row of the table, later ones what failed for a reason that can pass.

Reads NNNNN.parquet, img2dataset's fate of every row, of shards that are there; writes nothing. What a round's shards
hold is a pure function of the rounds before it, so a broken round goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from steps.data.causes import can_pass, from_message
from steps.data.guarded_downloader import ShardTask
from steps.data.parquet import read_parquet
from steps.data.screening import Screening
from steps.data.shards import VerifiedShard, shard_stem
from steps.data.storage import Storage
from steps.data.url_table import TableSlice, UrlTable

SHARDS_AT_ONCE: Final = 64
SUCCESS: Final = "success"


@dataclass(frozen=True)
class Round:
    """One round's shards."""

    first_index: int
    """Number of its first shard."""
    shards: int
    """How many it has."""
    rows: tuple[int, ...] | None
    """Rows of the table that it tries, ascending; None: all of them."""
    causes: tuple[str, ...] = ()
    """Of each of `rows`: under which it is counted until then."""

    @property
    def end(self) -> int:
        """Number after its last shard."""
        return self.first_index + self.shards

    def missing(self, shards: Mapping[int, VerifiedShard]) -> list[int]:
        """Return the numbers of its shards that are not there."""
        return [index for index in range(self.first_index, self.end) if index not in shards]


def first_round(table: UrlTable, samples_per_shard: int) -> Round:
    """Return the round that tries every row."""
    return Round(0, -(-table.rows // samples_per_shard), None)


def next_round(before: Round, storage: Storage, shards: Mapping[int, VerifiedShard], samples_per_shard: int) -> Round:
    """Return the round that tries what `before`, all of which is there, left to be tried again."""
    worth = [index for index in range(before.first_index, before.end) if any(map(can_pass, shards[index].failed))]
    rows: list[int] = []
    causes: list[str] = []
    for index, fates in _fates(storage, worth):
        first = (index - before.first_index) * samples_per_shard
        for place, cause in enumerate(fates, first):
            if can_pass(cause):
                rows.append(place if before.rows is None else before.rows[place])
                causes.append(cause)
    return Round(before.end, -(-len(rows) // samples_per_shard), tuple(rows), tuple(causes))


def _fates(storage: Storage, indices: list[int]) -> Iterator[tuple[int, list[str]]]:
    """Yield for each shard the cause of every row in order; of samples, `success`."""
    for start in range(0, len(indices), SHARDS_AT_ONCE):
        names = {f"{shard_stem(index)}.parquet": index for index in indices[start : start + SHARDS_AT_ONCE]}
        for name, content in storage.read_many(list(names)).items():
            table = read_parquet(content, ["status", "error_message"])
            pairs = zip(table["status"].to_pylist(), table["error_message"].to_pylist(), strict=True)
            yield names[name], [SUCCESS if status == SUCCESS else from_message(message) for status, message in pairs]


def tasks(
    one: Round, table: UrlTable, screening: Screening, shards: Mapping[int, VerifiedShard], samples_per_shard: int
) -> Iterator[ShardTask]:
    """Yield the shards of a round that are not there."""
    missing = set(one.missing(shards))
    if one.rows is None:
        for part in table.shards(samples_per_shard):
            if part.index in missing:
                yield ShardTask(part, screening.skipped(part.first_row, len(part.urls)))
        return
    for number, part in enumerate(_selected(table, one.rows, samples_per_shard)):
        if one.first_index + number in missing:
            retried = Counter(one.causes[part.first_row : part.first_row + len(part.urls)])
            yield ShardTask(replace(part, index=one.first_index + number), {}, dict(retried))


def _selected(table: UrlTable, rows: tuple[int, ...], size: int) -> Iterator[TableSlice]:
    """Yield these rows, so many at a time, numbered from 0."""
    wanted = np.array(rows, np.int64)
    held, first_row = _NOTHING, 0
    for part in table.shards(size):
        first, last = np.searchsorted(wanted, (part.first_row, part.first_row + len(part.urls)))
        held = _joined(held, part, (wanted[first:last] - part.first_row).tolist())
        if len(held.urls) >= size:
            yield _rows(held, slice(size), first_row)
            held, first_row = _rows(held, slice(size, None), 0), first_row + size
    if held.urls:
        yield _rows(held, slice(None), first_row)


_NOTHING: Final = TableSlice(0, 0, [], [])


def _joined(held: TableSlice, part: TableSlice, rows: list[int]) -> TableSlice:
    """Return `held` and behind it some rows of a part of the table."""

    def chosen(values: list[Any]) -> list[Any]:
        return [values[row] for row in rows]

    others = {name: held.others.get(name, []) + chosen(values) for name, values in part.others.items()}
    return TableSlice(0, 0, held.urls + chosen(part.urls), held.captions + chosen(part.captions), others)


def _rows(held: TableSlice, rows: slice, first_row: int) -> TableSlice:
    others = {name: values[rows] for name, values in held.others.items()}
    return TableSlice(0, first_row, held.urls[rows], held.captions[rows], others)
