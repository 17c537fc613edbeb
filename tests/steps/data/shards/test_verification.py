import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steps.data.shards.verification import HashingReader, UnverifiedShardError, read_tar, verify_shard
from steps.data.storage import Storage
from tests.steps.data.img2dataset_shards import write_shard
from tests.steps.data.web import picture


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return write_shard(str(tmp_path), range(10), failed=[3])


def test_a_shard_that_agrees_is_verified(storage: Storage) -> None:
    shard = verify_shard(storage, 0, 10)
    assert (shard.name, shard.rows, shard.samples, shard.failed) == ("00000.tar", 10, 9, {"http_404": 1})
    assert shard.bytes == len(storage.read("00000.tar"))


def test_the_table_of_samples_says_where_each_sample_is(storage: Storage) -> None:
    verify_shard(storage, 0, 10)
    table = pq.read_table(io.BytesIO(storage.read("00000.samples.parquet"))).to_pylist()
    assert [row["caption"] for row in table] == [f"caption {row}" for row in range(10) if row != 3]
    for row in table:
        part = storage.read_range("00000.tar", row["start"], row["stop"])
        assert picture(int(row["key"])) in part and row["caption"].encode() in part


def edit_statistics(storage: Storage, **changes: object) -> None:
    statistics = json.loads(storage.read("00000_stats.json"))
    storage.write("00000_stats.json", json.dumps({**statistics, **changes}).encode())


def drop_a_part(storage: Storage) -> None:
    """What a lost multipart part leaves: bytes missing in the middle."""
    content = storage.read("00000.tar")
    storage.write("00000.tar", content[:4096] + content[8192 + 4096 :])


def other_tar(storage: Storage) -> None:
    other = write_shard(storage.uri + "-other", range(10), failed=[4])
    storage.write("00000.tar", other.read("00000.tar"))


DAMAGE: dict[str, Callable[[Storage], None]] = {
    "no tar": lambda storage: storage.delete("00000.tar"),
    "no parquet": lambda storage: storage.delete("00000.parquet"),
    "no statistics": lambda storage: storage.delete("00000_stats.json"),
    "tar cut": lambda storage: storage.write("00000.tar", storage.read("00000.tar")[:9000]),
    "tar cut between members": lambda storage: storage.write("00000.tar", storage.read("00000.tar")[:4096]),
    "part lost": drop_a_part,
    "another tar": other_tar,
    "parquet cut": lambda storage: storage.write("00000.parquet", storage.read("00000.parquet")[:-9]),
    "fewer successes counted": lambda storage: edit_statistics(storage, successes=8),
    "fewer rows counted": lambda storage: edit_statistics(storage, count=9),
    "fates missing": lambda storage: edit_statistics(storage, status_dict={"success": 9}),
    "statistics unreadable": lambda storage: storage.write("00000_stats.json", b"{"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_shard_that_does_not_agree_is_not_verified(storage: Storage, damage: Callable[[Storage], None]) -> None:
    damage(storage)
    with pytest.raises(UnverifiedShardError, match="00000"):
        verify_shard(storage, 0, 10)


def test_a_shard_of_other_rows_is_not_verified(storage: Storage) -> None:
    with pytest.raises(UnverifiedShardError, match="11 rows, 10 in the parquet"):
        verify_shard(storage, 0, 11)


def test_a_shard_without_successes_is_verified_as_empty(tmp_path: Path) -> None:
    storage = write_shard(str(tmp_path), range(2), failed=[0, 1])
    assert verify_shard(storage, 0, 2).samples == 0
    assert pq.read_table(io.BytesIO(storage.read("00000.samples.parquet"))).num_rows == 0


def test_a_sample_in_two_places_is_found(storage: Storage) -> None:
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(storage.read("00000.tar"))) as whole,
        tarfile.open(fileobj=buffer, mode="w") as mixed,
    ):
        members = sorted(whole, key=lambda member: member.name.rpartition(".")[2])
        for member in members:
            mixed.addfile(member, whole.extractfile(member))
    buffer.seek(0)
    with pytest.raises(ValueError, match="sample 00000000 stands in two places"):
        read_tar(HashingReader(buffer))


def test_a_sample_without_its_caption_is_found(storage: Storage) -> None:
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(storage.read("00000.tar"))) as whole,
        tarfile.open(fileobj=buffer, mode="w") as less,
    ):
        for member in whole:
            if member.name != "00000005.txt":
                less.addfile(member, whole.extractfile(member))
    buffer.seek(0)
    with pytest.raises(ValueError, match="sample 00000005 has jpg, json"):
        read_tar(HashingReader(buffer))
