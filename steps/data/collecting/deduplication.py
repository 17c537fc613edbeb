"""Marks the samples that do not count, copies of others among them, in the tables of their shards.

Reads NNNNN.samples.parquet of every shard; writes those again of which a sample's `dropped` changes. The tars stay as
they are: whoever reads samples passes over the marked ones. A pure function of the shards: run again, it changes
nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steps.data.causes import Cause
from steps.data.collecting.fates import Keys, Mask, Rows
from steps.data.parquet import read_parquet
from steps.data.pictures.perceptual_hash import COLOUR_BYTES, COLOURS
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.shards_artifact import SAMPLES_SUFFIX, VerifiedShard
from steps.data.shards.verification import write_samples
from steps.data.storage import Storage

TABLES_AT_ONCE: Final = 64
BITS: Final = 64
NO_BLOCKLIST: Final = Blocklist()
COLOUR_TOLERANCE: Final = np.tile(np.array([16, 8, 8], np.int16), COLOURS)
"""Of 255, in lightness and in the two colours: several times what another compression or size changes."""
OPTIONAL_COLUMNS: Final = {
    "original_width": pa.int32(),
    "original_height": pa.int32(),
    "perceptual_hash": pa.uint64(),
    "colour_layout": pa.binary(COLOUR_BYTES),
}
"""Of NNNNN.samples.parquet; earlier releases did not write all of them."""
# What flat pictures have, and by it those whose shape lay in what is transparent, in tables of before such had none.
FLAT_HASHES: Final = np.array([0, 1 << 63], np.uint64)


@dataclass(frozen=True, eq=False)
class Looks:
    """How samples look."""

    hashes: Keys
    """[samples]: perceptual hashes."""
    is_known: Mask
    """[samples]: whether it has one that tells something."""
    colours: npt.NDArray[np.uint8]
    """[samples, COLOUR_BYTES]: see colour_layout."""
    has_colours: Mask
    """[samples]: whether they are known; tables of before colours were noted have none, and every colour will do."""

    def at(self, places: Rows) -> "Looks":
        """Return the looks of some samples, in this order."""
        return Looks(self.hashes[places], self.is_known[places], self.colours[places], self.has_colours[places])


def mark_samples(
    storage: Storage,
    shards: Sequence[VerifiedShard],
    decided: Sequence[str | None],
    dedup: str,
    max_distance: int,
    blocklist: Blocklist = NO_BLOCKLIST,
) -> tuple[list[VerifiedShard], list[str | None]]:
    """Return the shards, in the order given, with what counts of them, and why each sample is left out.

    `decided` says it for each sample as far as its row decides it. Of copies among the others, the one with the most
    pixels counts (as it came, before it was resized), and of equal ones the first.
    """
    exact, pixels, is_blocked, looks = _pictures(storage, shards, blocklist)
    causes: list[str | None] = list(decided)
    for place in np.flatnonzero(is_blocked).tolist():
        causes[place] = causes[place] or Cause.BLOCKED_PICTURE.value
    counted = np.array([not cause for cause in causes], np.bool_)
    order = np.argsort(-pixels, kind="stable")
    order = order[counted[order]]
    if dedup == "perceptual":
        order_of_known = order[looks.is_known[order]]
        for place in order_of_known[near_duplicates(looks.at(order_of_known), max_distance)].tolist():
            causes[place] = Cause.NEAR_DUPLICATE.value
    if dedup != "url":
        for place in order[repeated(exact[order])].tolist():
            causes[place] = Cause.DUPLICATE_PICTURE.value
    marked: list[VerifiedShard] = []
    first = 0
    for shard, table in _tables(storage, shards):
        part = causes[first : first + len(table)]
        first += len(table)
        wanted = pa.array(part, pa.string())
        if not table["dropped"].combine_chunks().equals(wanted):
            place = table.schema.get_field_index("dropped")
            write_samples(storage, shard.name.removesuffix(".tar"), table.set_column(place, "dropped", wanted))
        counts = Counter(cause for cause in part if cause)
        update = {"samples": len(table) - counts.total(), "dropped": dict(sorted(counts.items()))}
        marked.append(shard.model_copy(update=update))
    return marked, causes


def _pictures(
    storage: Storage, shards: Sequence[VerifiedShard], blocklist: Blocklist
) -> tuple[Keys, Rows, Mask, Looks]:
    """Return all samples' 64 bits of the sha256, pixels of the originals (0: unknown), whether blocked, and looks."""
    none = pa.table({"sha256": pa.array([], pa.string())})
    columns = [_columns(none, blocklist), *(_columns(table, blocklist) for _, table in _tables(storage, shards))]
    exact, pixels, is_blocked, *looks = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return exact, pixels, is_blocked, Looks(*looks)


def _columns(table: Any, blocklist: Blocklist) -> tuple[npt.NDArray[Any], ...]:
    """Return a table's part of what _pictures returns, the fields of Looks last."""
    facts = {
        name: table[name].combine_chunks() if name in table.column_names else pa.nulls(len(table), kind)
        for name, kind in OPTIONAL_COLUMNS.items()
    }
    width, height, hashes = (facts[name].fill_null(0).to_numpy() for name in list(facts)[:3])
    colours = b"".join(facts["colour_layout"].fill_null(bytes(COLOUR_BYTES)).to_pylist())
    return (
        # Of two billion samples, one in expectation every ten runs shares 64 bits with another by chance.
        np.array([int(text[:16], 16) for text in table["sha256"].to_pylist()], np.uint64),
        width.astype(np.int64) * height,
        blocklist.blocked(table["sha256"].to_pylist(), facts["perceptual_hash"].to_pylist()),
        hashes,
        np.asarray(facts["perceptual_hash"].is_valid()) & ~np.isin(hashes, FLAT_HASHES),
        np.frombuffer(colours, np.uint8).reshape(-1, COLOUR_BYTES),
        np.asarray(facts["colour_layout"].is_valid()),
    )


def _tables(storage: Storage, shards: Sequence[VerifiedShard]) -> Iterator[tuple[VerifiedShard, pa.Table]]:
    for start in range(0, len(shards), TABLES_AT_ONCE):
        part = shards[start : start + TABLES_AT_ONCE]
        names = [shard.name.removesuffix(".tar") + SAMPLES_SUFFIX for shard in part]
        contents = storage.read_many(names)
        for shard, name in zip(part, names, strict=True):
            yield shard, read_parquet(contents[name])


def repeated(*keys: npt.NDArray[Any]) -> Rows:
    """Return the places all of whose keys stand together at an earlier place."""
    order = np.lexsort(keys)
    is_same = np.all([key[order[1:]] == key[order[:-1]] for key in keys], axis=0)
    return np.asarray(order[1:][is_same])


def near_duplicates(looks: Looks, max_distance: int) -> Rows:
    """Return the places that look like an earlier one.

    Their hashes differ in at most `max_distance` bits (0 to 3), and their colours in no more than COLOUR_TOLERANCE.

    Two hashes that differ in d bits agree in d of 2 d parts of 64 / (2 d) bits: so only those that share some 32 bits
    are compared (Manku, Jain, Das Sarma 2007, https://doi.org/10.1145/1242572.1242592).
    """
    is_copy = np.zeros(len(looks.hashes), np.bool_)
    is_copy[repeated(looks.hashes, looks.has_colours, *looks.colours.T)] = True
    first = np.flatnonzero(~is_copy)
    for mask in _masks(max_distance):
        keys = looks.hashes[first] & mask
        order = np.argsort(keys, kind="stable")
        for group in _groups(first[order], keys[order]):
            # The places of a group ascend: each is compared with those before it.
            for position in range(1, len(group)):
                is_copy[group[position]] |= _is_alike(looks, group[position], group[:position], max_distance)
    return np.flatnonzero(is_copy)


def _is_alike(looks: Looks, place: int, others: Rows, max_distance: int) -> bool:
    near = others[np.bitwise_count(looks.hashes[others] ^ looks.hashes[place]) <= max_distance]
    differences = np.abs(looks.colours[near].astype(np.int16) - looks.colours[place])
    is_same_colour = (differences <= COLOUR_TOLERANCE).all(axis=1)
    return bool((is_same_colour | ~looks.has_colours[near] | ~looks.has_colours[place]).any())


def _masks(max_distance: int) -> Iterable[np.uint64]:
    if not max_distance:
        yield np.uint64(2**BITS - 1)
        return
    parts = 2 * max_distance
    edges = [BITS * part // parts for part in range(parts + 1)]
    masks = [((1 << (edges[part + 1] - edges[part])) - 1) << edges[part] for part in range(parts)]
    for chosen in combinations(masks, max_distance):
        yield np.uint64(sum(chosen))


def _groups(order: Rows, keys: Keys) -> Iterator[Rows]:
    edges = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1], True]) if len(keys) else np.zeros(1, np.int64)
    for start, stop in pairwise(edges):
        if stop - start > 1:
            yield order[start:stop]
