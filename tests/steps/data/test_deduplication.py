from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.deduplication import drop_duplicates, near_duplicates
from steps.data.samples import read_table
from steps.data.shards import VerifiedShard
from steps.data.storage import Storage
from tests.steps.data.tables import write_samples

CONTENTS = [["a", "b"], ["c", "a"], ["d"]]
HASHES = [[0, None], [0b111, 0], [0b1]]


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
    monkeypatch.setattr("steps.data.deduplication.write_samples", lambda storage, stem, table: written.append(stem))
    drop_duplicates(storage, [shard(0, 2), shard(1, 2), shard(2, 1)], "exact", 0)
    assert written == ["00001"]


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 63), max_size=4)), max_size=30), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_near_duplicates_are_those_that_a_comparison_of_all_pairs_finds(
    flips: list[tuple[int, list[int]]], distance: int
) -> None:
    centres = np.random.default_rng(0).integers(0, 2**63, 4).tolist()
    numbers = []
    for centre, bits in flips:
        number = centres[centre]
        for bit in bits:
            number ^= 1 << bit
        numbers.append(number)
    expected = [
        place
        for place, number in enumerate(numbers)
        if any((number ^ earlier).bit_count() <= distance for earlier in numbers[:place])
    ]
    assert near_duplicates(np.array(numbers, np.uint64), distance).tolist() == expected
