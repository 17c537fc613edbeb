"""Rounds of a download: the first fetches every row of the table, later ones what failed for a reason that can pass.

Reads NNNNN.parquet, img2dataset's fate of every row, of shards that are there; writes nothing. What a round's shards
hold is a pure function of the rounds before it, so a broken round goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

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
    found = _selected(table, one.rows, samples_per_shard)
    for number, (urls, captions) in enumerate(found):
        if one.first_index + number in missing:
            first = number * samples_per_shard
            retried = Counter(one.causes[first : first + len(urls)])
            yield ShardTask(TableSlice(one.first_index + number, first, urls, captions), {}, dict(retried))


def _selected(table: UrlTable, rows: tuple[int, ...], size: int) -> Iterator[tuple[list[str | None], list[str | None]]]:
    """Yield the urls and captions of these rows, so many at a time."""
    wanted = np.array(rows, np.int64)
    urls: list[str | None] = []
    captions: list[str | None] = []
    for part in table.shards(size):
        first, last = np.searchsorted(wanted, (part.first_row, part.first_row + len(part.urls)))
        for row in (wanted[first:last] - part.first_row).tolist():
            urls.append(part.urls[row])
            captions.append(part.captions[row])
        if len(urls) >= size:
            yield urls[:size], captions[:size]
            urls, captions = urls[size:], captions[size:]
    if urls:
        yield urls, captions
