"""Finds samples that are copies of earlier ones, over all shards, and marks them in their shards' tables.

Reads NNNNN.samples.parquet of every shard; writes those again of which a sample's `dropped` changes. The tars stay as
they are: whoever reads samples passes over the marked ones. A pure function of the shards: run again, it changes
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steps.data.causes import Cause
from steps.data.parquet import read_parquet
from steps.data.shards import SAMPLES_SUFFIX, VerifiedShard
from steps.data.storage import Storage
from steps.data.verification import write_samples

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

TABLES_AT_ONCE: Final = 64
BITS: Final = 64
CAUSES: Final = (None, Cause.DUPLICATE_PICTURE, Cause.NEAR_DUPLICATE)


def drop_duplicates(
    storage: Storage, shards: Sequence[VerifiedShard], dedup: str, max_distance: int
) -> list[VerifiedShard]:
    """Return the shards, in the order given, with what counts of them; of copies, the first in that order counts."""
    exact, perceptual, known = _hashes(storage, shards)
    dropped = np.zeros(len(exact), np.uint8)
    if dedup == "perceptual":
        places = np.flatnonzero(known)
        dropped[places[near_duplicates(perceptual[places], max_distance)]] = CAUSES.index(Cause.NEAR_DUPLICATE)
    if dedup != "url":
        dropped[repeated(exact)] = CAUSES.index(Cause.DUPLICATE_PICTURE)
    marked: list[VerifiedShard] = []
    first = 0
    for shard, table in _tables(storage, shards):
        causes = [CAUSES[number] for number in dropped[first : first + len(table)]]
        first += len(table)
        _mark(storage, shard, table, causes)
        counts = Counter(cause.value for cause in causes if cause)
        update = {"samples": len(table) - counts.total(), "dropped": dict(sorted(counts.items()))}
        marked.append(shard.model_copy(update=update))
    return marked


def _mark(storage: Storage, shard: VerifiedShard, table: pa.Table, causes: list[Cause | None]) -> None:
    wanted = pa.array([cause and cause.value for cause in causes], pa.string())
    if not table["dropped"].combine_chunks().equals(wanted):
        column = table.schema.get_field_index("dropped")
        write_samples(storage, shard.name.removesuffix(".tar"), table.set_column(column, "dropped", wanted))


def _hashes(storage: Storage, shards: Sequence[VerifiedShard]) -> tuple[Hashes, Hashes, npt.NDArray[np.bool_]]:
    """Return 64 bits of every sample's sha256, its perceptual hash, and whether it has one."""
    exact, perceptual, known = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.bool_)]
    for _, table in _tables(storage, shards):
        # Of two billion samples, one in expectation every ten runs shares 64 bits with another by chance.
        exact.append(np.array([int(text[:16], 16) for text in table["sha256"].to_pylist()], np.uint64))
        perceptual.append(table["perceptual_hash"].fill_null(0).to_numpy())
        known.append(table["perceptual_hash"].is_valid().to_numpy())
    return np.concatenate(exact), np.concatenate(perceptual), np.concatenate(known)


def _tables(storage: Storage, shards: Sequence[VerifiedShard]) -> Iterator[tuple[VerifiedShard, pa.Table]]:
    for start in range(0, len(shards), TABLES_AT_ONCE):
        part = shards[start : start + TABLES_AT_ONCE]
        names = [shard.name.removesuffix(".tar") + SAMPLES_SUFFIX for shard in part]
        contents = storage.read_many(names)
        for shard, name in zip(part, names, strict=True):
            yield shard, read_parquet(contents[name])


def repeated(hashes: Hashes) -> Rows:
    """Return the places whose hash stands at an earlier place."""
    order = np.argsort(hashes, kind="stable")
    places: Rows = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
    return places


def near_duplicates(hashes: Hashes, max_distance: int) -> Rows:
    """Return the places whose hash differs in at most so many bits (0 to 3) from one at an earlier place.

    Two hashes that differ in d bits agree in d of 2 d parts of 64 / (2 d) bits: so only those that share some 32 bits
    are compared (Manku, Jain, Das Sarma 2007, https://doi.org/10.1145/1242572.1242592).
    """
    found = np.zeros(len(hashes), np.bool_)
    found[repeated(hashes)] = True
    first = np.flatnonzero(~found)
    for mask in _masks(max_distance):
        keys = hashes[first] & mask
        order = np.argsort(keys, kind="stable")
        for group in _groups(first[order], keys[order]):
            # The places of a group ascend: each is compared with those before it.
            for position in range(1, len(group)):
                differences = hashes[group[:position]] ^ hashes[group[position]]
                found[group[position]] |= bool((np.bitwise_count(differences) <= max_distance).any())
    places: Rows = np.flatnonzero(found)
    return places


def _masks(max_distance: int) -> Iterable[np.uint64]:
    if not max_distance:
        return
    parts = 2 * max_distance
    edges = [BITS * part // parts for part in range(parts + 1)]
    masks = [((1 << (edges[part + 1] - edges[part])) - 1) << edges[part] for part in range(parts)]
    for chosen in combinations(masks, max_distance):
        yield np.uint64(sum(chosen))


def _groups(order: Rows, keys: Hashes) -> Iterator[Rows]:
    """Yield the places that share a key, where there are several."""
    edges = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1], True]) if len(keys) else np.zeros(1, np.int64)
    for start, stop in pairwise(edges):
        if stop - start > 1:
            yield order[start:stop]
