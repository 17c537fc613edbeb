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
import pyarrow.parquet as pq

from steps.data.causes import Cause
from steps.data.collecting.fates import MARKS
from steps.data.collecting.parts import Records, RowBytes, Rows, SpilledParts, hash_shift, shared
from steps.data.collecting.spread import spread
from steps.data.collecting.standing import IS_ROW
from steps.data.parquet import read_parquet
from steps.data.pictures.perceptual_hash import COLOUR_BYTES, COLOURS
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.shards_artifact import SAMPLES_SUFFIX, VerifiedShard
from steps.data.shards.verification import write_samples
from steps.data.storage import Storage

Mask = npt.NDArray[np.bool_]
Marks = npt.NDArray[np.uint8]
Shards = Sequence[VerifiedShard]

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
        same = spread(_same, ((part, "exact") for part in looks))
        _mark(marks, (places for places, _ in same), Cause.DUPLICATE_PICTURE)
    marked: list[VerifiedShard] = []
    of_rows: Counter[str] = Counter()
    pieces = ((storage, some, marks[places]) for some, places in _pieces(shards))
    for some, counts in spread(_write_marks, pieces):
        marked += some
        of_rows += counts
    return marked, of_rows


def _write_marks(storage: Storage, shards: Shards, marks: Marks) -> tuple[list[VerifiedShard], Counter[str]]:
    """Mark the samples of some shards; return what mark_samples does."""
    marked: list[VerifiedShard] = []
    for shard, content, part in _tables(storage, shards, marks):
        causes = part & ~np.uint8(IS_ROW)
        wanted = _CAUSES.take(pa.array(causes))
        if not read_parquet(content, ["dropped"])["dropped"].combine_chunks().equals(wanted):
            table = read_parquet(content)
            place = table.schema.get_field_index("dropped")
            write_samples(storage, shard.name.removesuffix(".tar"), table.set_column(place, "dropped", wanted))
        counts = _counted(causes)
        update = {"samples": len(part) - counts.total(), "dropped": dict(sorted(counts.items()))}
        marked.append(shard.model_copy(update=update))
    return marked, _counted(marks[marks >= IS_ROW] & ~np.uint8(IS_ROW))


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
    looks, pieces = SpilledParts(LOOK, hash_shift(len(marks))), list(_pieces(shards))
    told = ((storage, some, marks[places], blocklist, places.start) for some, places in pieces)
    for (found, part), (_, places) in zip(spread(_read_looks, told), pieces, strict=True):
        marks[places][:] = part
        looks.add(found["exact"], found)
    return looks


def _read_looks(
    storage: Storage, shards: Shards, marks: Marks, blocklist: Blocklist, first: int
) -> tuple[Records, Marks]:
    """Return LOOK of the samples of some shards, the first at this place, and their marks."""
    marks, looks = np.array(marks), [np.empty(0, LOOK)]
    for _, content, part in _tables(storage, shards, marks):
        table = read_parquet(content, ["sha256", *OPTIONAL_COLUMNS])
        facts = {
            name: table[name].combine_chunks() if name in table.column_names else pa.nulls(len(table), kind)
            for name, kind in OPTIONAL_COLUMNS.items()
        }
        if blocklist.sha256 or blocklist.hashes is not None:
            is_blocked = blocklist.blocked(table["sha256"].to_pylist(), facts["perceptual_hash"].to_pylist())
            part[is_blocked & (part & ~np.uint8(IS_ROW) == 0)] |= MARKS.index(Cause.BLOCKED_PICTURE)
        width, height, hashes = (facts[name].fill_null(0).to_numpy() for name in list(facts)[:3])
        found = np.empty(len(table), LOOK)
        found["place"] = np.arange(first, first + len(table))
        found["pixels"] = width.astype(np.int64) * height
        # Of two billion samples, one in expectation every ten runs shares 64 bits with another by chance.
        digits = pc.utf8_slice_codeunits(table["sha256"].cast(pa.string()), 0, 16).combine_chunks().buffers()[2]
        found["exact"] = np.frombuffer(bytes.fromhex(memoryview(digits or b"").tobytes().decode()), ">u8")
        found["hash"] = hashes
        found["is_known"] = np.asarray(facts["perceptual_hash"].is_valid()) & ~np.isin(hashes, FLAT_HASHES)
        colours = pc.fill_null(facts["colour_layout"], bytes(COLOUR_BYTES))
        places = slice(colours.offset, colours.offset + len(table))
        found["colours"] = np.frombuffer(colours.buffers()[1], np.uint8).reshape(-1, COLOUR_BYTES)[places]
        found["has_colours"] = np.asarray(facts["colour_layout"].is_valid())
        looks.append(found[part & ~np.uint8(IS_ROW) == 0])
        first += len(table)
    return np.concatenate(looks), marks


def _pieces(shards: Sequence[VerifiedShard]) -> Iterator[tuple[Sequence[VerifiedShard], slice]]:
    """Yield some shards at a time, and the places of their samples among all."""
    first = 0
    for start in range(0, len(shards), TABLES_AT_ONCE):
        some = shards[start : start + TABLES_AT_ONCE]
        stop = first + sum(shard.samples + sum(shard.dropped.values()) for shard in some)
        yield some, slice(first, stop)
        first = stop


def _tables(storage: Storage, shards: Shards, marks: Marks) -> Iterator[tuple[VerifiedShard, bytes, Marks]]:
    """Yield the shards with their tables of samples, as they are stored, and the marks of these."""
    names = [shard.name.removesuffix(".tar") + SAMPLES_SUFFIX for shard in shards]
    contents, first = storage.read_many(names), 0
    for shard, name in zip(shards, names, strict=True):
        rows = pq.read_metadata(pa.BufferReader(contents[name])).num_rows
        yield shard, contents[name], marks[first : first + rows]
        first += rows
    if first != len(marks):
        raise ValueError(f"{names[0]} to {names[-1]} have {first} samples, where {len(marks)} were made")


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

    Two hashes that differ in d bits agree in all but d of any parts of them: so only those that share some parts are
    compared (Manku, Jain, Das Sarma 2007, https://doi.org/10.1145/1242572.1242592).
    """
    # What looks the same to the bit is compared with others once.
    different, samples = SpilledParts(LOOK, looks.shift), 0
    alike = ((part, "hash", "has_colours", "colours") for part in _by_band(looks, np.uint64(2**BITS - 1)))
    for places, others in spread(_same, alike):
        yield places
        different.add(others["hash"] * ODD, others)
        samples += len(others)
    for mask in masks(max_distance, samples):
        yield from spread(_near, ((part, mask, max_distance) for part in _by_band(different, mask)))


def _same(looks: Records, *names: str) -> tuple[Rows, Records]:
    """Return the places of samples in which all of this is as in one before them, and the other samples."""
    if not len(looks):
        return looks["place"], looks
    columns = (looks[name].reshape(len(looks), -1) for name in names)
    again = _repeated(looks, *(part for column in columns for part in column.T))
    return looks["place"][again], np.delete(looks, again)


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


def masks(max_distance: int, samples: int) -> Iterator[np.uint64]:
    """Yield masks of which two hashes that differ in so many bits agree under one.

    Few samples need few bits, and fewer masks, until one by chance has as many others with the same bits.
    """
    if not max_distance:
        yield np.uint64(2**BITS - 1)
        return
    enough = (BITS * (parts - max_distance) // parts for parts in range(max_distance + 1, 2 * max_distance))
    parts = max_distance + 1 + sum(samples >> bits > 0 for bits in enough)
    edges = [BITS * part // parts for part in range(parts + 1)]
    masks = [((1 << (edges[part + 1] - edges[part])) - 1) << edges[part] for part in range(parts)]
    for chosen in combinations(masks, parts - max_distance):
        yield np.uint64(sum(chosen))
