import gc
import io
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.data.shards.shard_writer import OrderedShardWriter
from steps.data.storage import Storage
from tests.steps.data import s3_server
from tests.steps.data.img2dataset_shards import open_writer, put, write_shard


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


def test_samples_stand_in_the_order_of_the_table_whoever_answers_first(tmp_path: Path) -> None:
    tars = []
    for seed in range(3):
        rows = list(range(30))
        random.Random(seed).shuffle(rows)
        storage = write_shard(str(tmp_path / str(seed)), rows, index=7, failed=[0, 4, 29])
        tars.append((storage.read("00007.tar"), storage.read("00007.parquet")))
    assert tars[0] == tars[1] == tars[2]
    with tarfile.open(fileobj=io.BytesIO(tars[0][0])) as tar:
        names = tar.getnames()
        assert names == sorted(names) and len(names) == 27 * 3
        assert {member.mtime for member in tar} == {0}


def test_only_rows_that_wait_for_others_are_in_memory(tmp_path: Path) -> None:
    writer = open_writer(str(tmp_path))
    for row in (0, 1, 3, 4):
        put(writer, 0, row)
    assert sorted(writer._waiting) == [3, 4]
    put(writer, 0, 2)
    assert not writer._waiting
    writer.close()


def test_a_failed_write_fails_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(str(tmp_path))
    put(writer, 0, 0)

    def fail(sample: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(writer.tarwriter, "write", fail)
    put(writer, 0, 1)
    put(writer, 0, 2)
    with pytest.raises(OSError, match="no space"):
        writer.close()


def test_a_part_that_s3_refuses_fails_the_shard_and_leaves_no_upload(s3: s3_server.S3) -> None:
    uri = f"s3://{s3_server.BUCKET}/parts"
    writer = open_writer(uri)
    writer.tar_fd.blocksize = 100_000
    s3.faults += [lambda method, path: method == "PUT" and "partNumber=2" in path]
    for row in range(100):
        put(writer, 0, row)
    with pytest.raises(OSError):
        writer.close()
    del writer
    gc.collect()
    assert not s3.faults
    assert s3.names("parts") == []
    assert not s3.client.list_multipart_uploads(Bucket=s3_server.BUCKET).get("Uploads")


def test_every_row_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[None] = []
    monkeypatch.setattr(OrderedShardWriter, "on_row", staticmethod(lambda: rows.append(None)))
    write_shard(str(tmp_path), [2, 0, 1], failed=[1])
    assert len(rows) == 3


def test_abandoned_shards_do_not_appear(s3: s3_server.S3) -> None:
    writer = open_writer(f"s3://{s3_server.BUCKET}/abandoned")
    put(writer, 0, 0)
    writer.abandon()
    del writer
    gc.collect()
    assert Storage(f"s3://{s3_server.BUCKET}/abandoned").sizes() == {}
