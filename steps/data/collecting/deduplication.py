"""Marks the samples that do not count, copies of others among them, in the tables of their shards.

Reads NNNNN.samples.parquet of every shard; writes those again of which a sample's `dropped` changes. The tars stay as
they are: whoever reads samples passes over the marked ones. A pure function of the shards: run again, it changes
nothing. Copies are found part by part of their hashes, in temporary files (steps.data.collecting.parts).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steps.data.causes import Cause
from steps.data.collecting.fates import MARKS
from steps.data.collecting.parts import Records, RowBytes, Rows, SpilledParts, hash_shift, shared
from steps.data.collecting.standing import IS_ROW
from steps.data.parquet import read_parquet
from steps.data.pictures.perceptual_hash import COLOUR_BYTES, COLOURS
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.shards_artifact import SAMPLES_SUFFIX, VerifiedShard
from steps.data.shards.verification import write_samples
from steps.data.storage import Storage

Mask = npt.NDArray[np.bool_]

TABLES_AT_ONCE: Final = 64
ODD: Final = np.uint64(0x9E3779B97F4A7C15)
"""Times it, numbers that differ anywhere differ in their first bits, which tell parts apart."""
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


_LAYOUT: Final = np.dtype(("u1", COLOUR_BYTES))
LOOK: Final = np.dtype(
    {
        "names": ("place", "pixels", "exact", "hash", "is_known", "colours", "has_colours"),
        "formats": ("i8", "i8", "u8", "u8", "?", _LAYOUT, "?"),
    }
)
"""A sample: its place among all, the original's pixels (0: unknown), 64 bits of its sha256, its perceptual hash and
whether that tells something, its colour layout and whether it has one: tables of before colours were noted have none,
and every colour will do."""
_CAUSES: Final = pa.array(MARKS, pa.string())


def mark_samples(
    storage: Storage,
    shards: Sequence[VerifiedShard],
    marks: RowBytes,
    dedup: str,
    max_distance: int,
    blocklist: Blocklist = NO_BLOCKLIST,
) -> tuple[list[VerifiedShard], Counter[str]]:
    """Return the shards, in the order given, with what counts of them, and how many rows' samples do not, by cause.

    `marks` say of each sample why it is left out, as far as its row decides it (TableStanding.samples). Of copies among
    the others, the one with the most pixels counts (before it was resized), and of equal ones the first.
    """
    looks = _looks(storage, shards, marks, blocklist)
    if dedup == "perceptual":
        _mark(marks, near_duplicates(looks, max_distance), Cause.NEAR_DUPLICATE)
    if dedup != "url":
        _mark(marks, (part["place"][_repeated(part, part["exact"])] for part in looks), Cause.DUPLICATE_PICTURE)
    marked: list[VerifiedShard] = []
    of_rows: Counter[str] = Counter()
    for shard, table, part in _tables(storage, shards, marks):
        causes = part & ~np.uint8(IS_ROW)
        wanted = _CAUSES.take(pa.array(causes))
        if not table["dropped"].combine_chunks().equals(wanted):
            place = table.schema.get_field_index("dropped")
            write_samples(storage, shard.name.removesuffix(".tar"), table.set_column(place, "dropped", wanted))
        counts = _counted(causes)
        of_rows += _counted(causes[part >= IS_ROW])
        update = {"samples": len(table) - counts.total(), "dropped": dict(sorted(counts.items()))}
        marked.append(shard.model_copy(update=update))
    return marked, of_rows


def _counted(causes: npt.NDArray[np.uint8]) -> Counter[str]:
    counts = np.bincount(causes, minlength=len(MARKS)).tolist()
    return +Counter({cause: count for cause, count in zip(MARKS, counts, strict=True) if cause})


def _mark(marks: RowBytes, some: Iterable[Rows], cause: Cause) -> None:
    places = SpilledParts(np.int64)
    for part in some:
        places.add(part, part)
    for found, (start, window) in zip(places, marks.windows(), strict=False):
        window[found - start] = window[found - start] & IS_ROW | MARKS.index(cause)


def _looks(storage: Storage, shards: Sequence[VerifiedShard], marks: RowBytes, blocklist: Blocklist) -> SpilledParts:
    """Return LOOK of the samples that count so far, by their bytes; mark those that the blocklist has."""
    looks, first = SpilledParts(LOOK, hash_shift(len(marks))), 0
    for _, table, part in _tables(storage, shards, marks):
        facts = {
            name: table[name].combine_chunks() if name in table.column_names else pa.nulls(len(table), kind)
            for name, kind in OPTIONAL_COLUMNS.items()
        }
        is_blocked = blocklist.blocked(table["sha256"].to_pylist(), facts["perceptual_hash"].to_pylist())
        part[is_blocked & (part & ~np.uint8(IS_ROW) == 0)] |= MARKS.index(Cause.BLOCKED_PICTURE)
        width, height, hashes = (facts[name].fill_null(0).to_numpy() for name in list(facts)[:3])
        found = np.empty(len(table), LOOK)
        found["place"] = np.arange(first, first + len(table))
        found["pixels"] = width.astype(np.int64) * height
        # Of two billion samples, one in expectation every ten runs shares 64 bits with another by chance.
        digits = "".join(pc.utf8_slice_codeunits(table["sha256"].cast(pa.string()), 0, 16).to_pylist())
        found["exact"] = np.frombuffer(bytes.fromhex(digits), ">u8")
        found["hash"] = hashes
        found["is_known"] = np.asarray(facts["perceptual_hash"].is_valid()) & ~np.isin(hashes, FLAT_HASHES)
        colours = b"".join(facts["colour_layout"].fill_null(bytes(COLOUR_BYTES)).to_pylist())
        found["colours"] = np.frombuffer(colours, np.uint8).reshape(-1, COLOUR_BYTES)
        found["has_colours"] = np.asarray(facts["colour_layout"].is_valid())
        found = found[part & ~np.uint8(IS_ROW) == 0]
        looks.add(found["exact"], found)
        first += len(table)
    return looks


def _tables(
    storage: Storage, shards: Sequence[VerifiedShard], marks: RowBytes
) -> Iterator[tuple[VerifiedShard, pa.Table, npt.NDArray[np.uint8]]]:
    """Yield the shards with their tables of samples, and the marks of these."""
    first = 0
    for start in range(0, len(shards), TABLES_AT_ONCE):
        part = shards[start : start + TABLES_AT_ONCE]
        names = [shard.name.removesuffix(".tar") + SAMPLES_SUFFIX for shard in part]
        contents = storage.read_many(names)
        for shard, name in zip(part, names, strict=True):
            table = read_parquet(contents[name])
            yield shard, table, marks[first : first + len(table)]
            first += len(table)


def _repeated(looks: Records, *keys: npt.NDArray[Any]) -> Rows:
    """Return the places of samples all of whose keys stand together in one that goes before them."""
    places = shared(keys[0] * ODD)
    order = places[_by_rank(looks[places], *(key[places] for key in keys))]
    is_same = np.all([key[order[1:]] == key[order[:-1]] for key in keys], axis=0)
    return np.asarray(order[1:][is_same])


def _by_rank(looks: Records, *keys: npt.NDArray[Any]) -> Rows:
    """Return the order by keys and, where these are equal, by what counts first."""
    return np.lexsort((looks["place"], -looks["pixels"], *keys))


def near_duplicates(looks: SpilledParts, max_distance: int) -> Iterator[Rows]:
    """Yield the places, some more than once, of samples that look like one that goes before them.

    Their hashes differ in at most `max_distance` bits (0 to 3), and their colours in no more than COLOUR_TOLERANCE.

    Two hashes that differ in d bits agree in d of 2 d parts of 64 / (2 d) bits: so only those that share some 32 bits
    are compared (Manku, Jain, Das Sarma 2007, https://doi.org/10.1145/1242572.1242592).
    """
    # What looks the same to the bit is compared with others once.
    different = SpilledParts(LOOK, looks.shift)
    for part in _by_band(looks, np.uint64(2**BITS - 1)):
        again = _repeated(part, part["hash"], part["has_colours"], *np.ascontiguousarray(part["colours"]).view("u4").T)
        yield part["place"][again]
        others = np.delete(part, again)
        different.add(others["hash"] * ODD, others)
    for mask in _masks(max_distance):
        for part in _by_band(different, mask):
            yield _near(part, mask, max_distance)


def _by_band(looks: SpilledParts, mask: np.uint64) -> SpilledParts:
    """Return the samples whose hash tells something by the bits of it that a mask leaves."""
    parts = SpilledParts(LOOK, looks.shift)
    for part in looks:
        known = part[part["is_known"]]
        parts.add((known["hash"] & mask) * ODD, known)
    return parts


def _near(looks: Records, mask: np.uint64, max_distance: int) -> Rows:
    """Return the places of samples that look like one before them with the same bits under a mask."""
    looks = looks[shared((looks["hash"] & mask) * ODD)]
    looks = looks[_by_rank(looks, looks["hash"] & mask)]
    hashes, bands = looks["hash"].copy(), looks["hash"] & mask
    is_near = np.zeros(len(looks), np.bool_)
    # Each is compared with the one before it, then with the one before that, while they are of its band.
    here, lag = np.arange(1, len(looks)), 1
    while len(here):
        here = here[bands[here] == bands[here - lag]]
        close = here[np.bitwise_count(hashes[here] ^ hashes[here - lag]) <= max_distance]
        is_near[close[_have_same_colours(looks[close], looks[close - lag])]] = True
        lag += 1
        here = here[~is_near[here] & (here >= lag)]
    return np.asarray(looks["place"][is_near])


def _have_same_colours(some: Records, others: Records) -> Mask:
    differences = np.abs(some["colours"].astype(np.int16) - others["colours"])
    is_same = (differences <= COLOUR_TOLERANCE).all(axis=1)
    return np.asarray(is_same | ~some["has_colours"] | ~others["has_colours"])


def _masks(max_distance: int) -> Iterable[np.uint64]:
    if not max_distance:
        yield np.uint64(2**BITS - 1)
        return
    parts = 2 * max_distance
    edges = [BITS * part // parts for part in range(parts + 1)]
    masks = [((1 << (edges[part + 1] - edges[part])) - 1) << edges[part] for part in range(parts)]
    for chosen in combinations(masks, max_distance):
        yield np.uint64(sum(chosen))
