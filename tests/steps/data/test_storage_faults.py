"""S3 that is busy, broken or cut off costs a moment and never a byte; a full disk costs the job and never the data."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steps.data import storage as storage_module
from steps.data.storage import Storage
from tests.steps.data import s3_server

CONTENT = os.urandom(300_000)
KINDS = ("SlowDown", "InternalError", s3_server.RESET)
READS: dict[str, Callable[[Storage], bytes]] = {
    "read": lambda storage: storage.read("object"),
    "read_range": lambda storage: storage.read_range("object", 0, len(CONTENT)),
    "open": lambda storage: storage.open("object").read(),
    "read_many": lambda storage: storage.read_many(["object", "other"])["object"],
}


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture
def storage(s3: s3_server.S3, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(storage_module, "BACK_OFF_S", 0.01)
    s3.faults.clear()
    place = Storage(f"s3://{s3_server.BUCKET}/faults")
    place.write("object", CONTENT)
    place.write("other", b"other")
    return place


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_read_that_s3_fails_twice_gives_every_byte(s3: s3_server.S3, storage: Storage, kind: str, name: str) -> None:
    def fault(method: str, path: str) -> str:
        return kind if method == "GET" and "faults/object" in path else ""

    other: s3_server.Fault = lambda method, path: fault(method, path)  # noqa: E731
    s3.faults += [fault, other]
    assert READS[name](storage) == CONTENT
    assert s3.faults == [], "both faults were met"


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_write_that_s3_refuses_is_an_error_and_leaves_nothing_half_written(
    s3: s3_server.S3, storage: Storage, kind: str
) -> None:
    def fault(method: str, path: str) -> str:
        return kind if method in ("PUT", "POST") and f"faults/{kind}" in path else ""

    s3.faults += [fault] * 8
    with pytest.raises(OSError):
        storage.write(kind, CONTENT)
    s3.faults.clear()
    assert storage.size(kind) is None
    assert storage.abort_uploads() == 0
    storage.write(kind, CONTENT)
    assert storage.read(kind) == CONTENT


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_list_that_s3_refuses_is_no_empty_list(s3: s3_server.S3, storage: Storage, kind: str) -> None:
    def fault(method: str, path: str) -> str:
        return kind if method == "GET" and "list-type" in path else ""

    s3.faults.append(fault)
    assert {"object", "other"} <= set(storage.sizes())
    assert s3.faults == []


def test_a_list_is_never_one_of_before(s3: s3_server.S3, storage: Storage) -> None:
    """Listings are not kept: what another host wrote a moment ago is seen, and what it removed is not."""
    storage.sizes()
    s3.client.put_object(Bucket=s3_server.BUCKET, Key="faults/later", Body=b"1")
    assert "later" in storage.sizes()
    s3.client.delete_object(Bucket=s3_server.BUCKET, Key="faults/later")
    assert "later" not in storage.sizes()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    place = Storage(str(tmp_path))
    place.write("object", b"before")
    with full_disk(), pytest.raises(OSError):
        place.write("object", CONTENT)
    assert place.read("object") == b"before"
    assert set(place.sizes()) == {"object"}


@contextmanager
def full_disk(free_bytes: int = 64 * 1024) -> Iterator[None]:
    """Let no file grow beyond a size: the kernel refuses the write, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
