from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.collecting.deduplication import BITS, COLOUR_TOLERANCE, LOOK, mark_samples, masks, near_duplicates
from steps.data.collecting.parts import RowBytes, SpilledParts, hash_shift
from steps.data.encoding.samples import read_table
from steps.data.pictures.perceptual_hash import COLOUR_BYTES
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.storage import Storage
from tests.steps.data.shard_tables import write_samples

CONTENTS = [["a", "b"], ["c", "a"], ["d"]]
HASHES = [[1 << 9, None], [0b111 | 1 << 9, 1 << 9], [0b1 | 1 << 9]]


def drop_duplicates(storage: Storage, shards: list[VerifiedShard], dedup: str, distance: int) -> list[VerifiedShard]:
    count = sum(one.samples + sum(one.dropped.values()) for one in shards)
    return mark_samples(storage, shards, RowBytes(count), dedup, distance)[0]


def shard(index: int, samples: int) -> VerifiedShard:
    return VerifiedShard(name=f"{index:05d}.tar", rows=9, samples=samples, bytes=1, sha256="", failed={})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    for index, (contents, hashes) in enumerate(zip(CONTENTS, HASHES, strict=True)):
        write_samples(Storage(str(tmp_path)), index, contents, hashes)
    return Storage(str(tmp_path))


@pytest.mark.parametrize(
    ("dedup", "distance", "dropped"),
    [
        ("url", 0, [{}, {}, {}]),
        ("exact", 0, [{}, {"duplicate_picture": 1}, {}]),
        ("perceptual", 0, [{}, {"duplicate_picture": 1}, {}]),
        ("perceptual", 1, [{}, {"duplicate_picture": 1}, {"near_duplicate": 1}]),
        ("perceptual", 3, [{}, {"duplicate_picture": 1, "near_duplicate": 1}, {"near_duplicate": 1}]),
    ],
)
def test_of_copies_the_first_counts_and_the_others_are_marked(
    storage: Storage, dedup: str, distance: int, dropped: list[dict[str, int]]
) -> None:
    shards = [shard(index, len(contents)) for index, contents in enumerate(CONTENTS)]
    found = drop_duplicates(storage, shards, dedup, distance)
    assert [one.dropped for one in found] == dropped
    for one in found:
        assert len(read_table(storage, one.name).keys) == one.samples
    assert drop_duplicates(storage, found, dedup, distance) == found
    assert read_table(storage, "00001.tar").starts.tolist() == (
        [0] if dropped[1] == {"duplicate_picture": 1} else [0, 1] if not dropped[1] else []
    )


def test_tables_that_do_not_change_are_not_written_again(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        "steps.data.collecting.deduplication.write_samples", lambda storage, stem, table: written.append(stem)
    )
    drop_duplicates(storage, [shard(0, 2), shard(1, 2), shard(2, 1)], "exact", 0)
    assert written == ["00001"]


def looks_of(numbers: list[int], colours: list[bytes | None]) -> SpilledParts:
    found = np.zeros(len(numbers), LOOK)
    found["place"], found["hash"], found["is_known"] = np.arange(len(numbers)), np.array(numbers, np.uint64), True
    layouts = b"".join(one or bytes(COLOUR_BYTES) for one in colours)
    found["colours"] = np.frombuffer(layouts, np.uint8).reshape(-1, COLOUR_BYTES)
    found["has_colours"] = [one is not None for one in colours]
    parts = SpilledParts(LOOK, hash_shift(1 << 21))
    parts.add(found["hash"], found)
    return parts


def is_alike(one: bytes | None, other: bytes | None) -> bool:
    pairs = zip(one or b"", other or b"", COLOUR_TOLERANCE.tolist(), strict=False)
    return all(abs(a - b) <= most for a, b, most in pairs)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.lists(st.integers(0, 63), max_size=4), st.sampled_from([None, 0, 7, 8, 9, 17, 40])
        ),
        max_size=30,
    ),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_near_duplicates_are_those_that_a_comparison_of_all_pairs_finds(
    flips: list[tuple[int, list[int], int | None]], distance: int
) -> None:
    centres = np.random.default_rng(0).integers(0, 2**63, 4).tolist()
    numbers, colours = [], []
    for centre, bits, level in flips:
        number = centres[centre]
        for bit in bits:
            number ^= 1 << bit
        numbers.append(number)
        colours.append(None if level is None else bytes([level] * COLOUR_BYTES))
    expected = [
        place
        for place, number in enumerate(numbers)
        if any(
            (number ^ numbers[earlier]).bit_count() <= distance and is_alike(colours[place], colours[earlier])
            for earlier in range(place)
        )
    ]
    found = near_duplicates(looks_of(numbers, colours), distance)
    assert sorted({place for some in found for place in some.tolist()}) == expected


@given(st.integers(1, 3), st.sampled_from([1, 10**6, 10**9]), st.data())
@settings(max_examples=100, deadline=None)
def test_hashes_that_differ_in_few_bits_agree_under_a_mask(distance: int, samples: int, data: st.DataObject) -> None:
    bits = data.draw(st.sets(st.integers(0, BITS - 1), max_size=distance))
    difference = sum(1 << bit for bit in bits)
    assert any(not difference & int(mask) for mask in masks(distance, samples))
    assert len({*masks(3, samples)}) == {1: 4, 10**6: 10, 10**9: 20}[samples]


def test_of_copies_the_largest_original_is_kept_and_each_group_keeps_one(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    sizes = {"original_width": pa.array([100, 300, 300, 50], pa.int32())}
    sizes["original_height"] = sizes["original_width"]
    # 0 and 1 look alike; 2 is 1's copy to the byte; 3 is alone.
    write_samples(storage, 0, ["a", "b", "b", "c"], [0b1110, 0b1110, 0b1110, 0b1110 << 32], sizes)
    (found,) = drop_duplicates(storage, [shard(0, 4)], "perceptual", 0)
    assert found.dropped == {"duplicate_picture": 1, "near_duplicate": 1}
    assert read_table(storage, "00000.tar").captions == ["b", "c"]


def test_flat_pictures_of_earlier_tables_and_other_colours_are_no_copies(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    write_samples(storage, 0, ["black", "transparent", "grey"], [0, 0, 1 << 63])
    red, blue = bytes([200, 119, 153] * 4), bytes([200, 148, 124] * 4)
    colours = pa.array([red, blue, red], pa.binary(COLOUR_BYTES))
    write_samples(storage, 1, ["red", "blue", "red again"], [6, 6, 6], {"colour_layout": colours})
    found = drop_duplicates(storage, [shard(0, 3), shard(1, 3)], "perceptual", 3)
    assert [one.dropped for one in found] == [{}, {"near_duplicate": 1}]
    assert read_table(storage, "00001.tar").captions == ["red", "blue"]
