import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.data.storage import Storage
from tests.steps.data import s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, s3: s3_server.S3) -> Storage:
    name = request.node.name.replace("[", "-").strip("]")
    return Storage(str(tmp_path / "new") if request.param == "folder" else f"s3://{s3_server.BUCKET}/{name}/")


def test_what_is_written_is_read(storage: Storage) -> None:
    assert storage.sizes() == {} and storage.size("a") is None
    storage.write("a", b"0123456789")
    storage.write("b", b"b")
    storage.write("a", b"9876543210")
    assert storage.sizes() == {"a": 10, "b": 1}
    assert storage.read("a") == b"9876543210"
    assert storage.read_range("a", 2, 5) == b"765"
    there = bytearray(5)
    assert storage.read_into("a", 2, memoryview(there)) == 5 and there == b"76543"
    assert storage.read_into("a", 7, memoryview(there)) == 3 and there[:3] == b"210"
    assert storage.read_many(["a", "b"]) == {"a": b"9876543210", "b": b"b"}
    assert storage.read_many(["b"]) == {"b": b"b"} and storage.read_many([]) == {}
    with storage.open("a") as stream:
        assert stream.read() == b"9876543210"
    storage.delete("a")
    storage.delete("a")
    assert storage.sizes() == {"b": 1}
    with pytest.raises(FileNotFoundError):
        storage.read("a")


def test_it_travels_to_other_processes(storage: Storage) -> None:
    storage.write("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"1"  # noqa: S301


def test_uploads_left_behind_are_given_up(s3: s3_server.S3) -> None:
    for key in ("mine/00000.tar", "others/00000.tar"):
        s3.client.create_multipart_upload(Bucket=s3_server.BUCKET, Key=key)
    assert Storage(f"s3://{s3_server.BUCKET}/mine").abort_uploads() == 1
    left = s3.client.list_multipart_uploads(Bucket=s3_server.BUCKET).get("Uploads", [])
    assert [upload["Key"] for upload in left] == ["others/00000.tar"]
