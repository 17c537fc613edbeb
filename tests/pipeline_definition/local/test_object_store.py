from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.journal import Journal
from pipeline_definition.local.object_store import ObjectStore, bucket_and_key
from pipeline_definition.local.stored_object import key_of, object_path

LETTERS = st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"])
KEYS = st.text(LETTERS | st.sampled_from("./%+"), min_size=1, max_size=40).map(lambda key: key * 12) | st.text(LETTERS)


@given(KEYS)
def test_a_key_is_known_from_its_path_and_never_leaves_its_bucket(key: str) -> None:
    root = Path("/nowhere")
    path = object_path(root, "bucket", key)
    assert key_of(root / "bucket", path) == key
    assert not {"..", "."} & set(path.parts) and path.is_relative_to(root / "bucket")
    assert all(len(name.encode()) < 255 for name in path.parts)


def test_objects_outlive_the_process(make_store: Callable[[], ObjectStore]) -> None:
    store = make_store()
    bucket = store._backend.create_bucket("bucket", "us-east-1")
    key = store._backend.put_object("bucket", "a/b", b"1")
    key.set_metadata({"x-amz-meta-who": "me", "Content-Type": "text/plain"})
    etag = key.etag
    again = make_store()
    assert again.read("s3://bucket/a/b") == b"1"
    back = again._backend.get_object("bucket", "a/b")
    assert (back.etag, back.metadata["content-type"], back.metadata["x-amz-meta-who"]) == (etag, "text/plain", "me")
    assert bucket.name in again._backend.buckets


def test_a_store_of_an_earlier_version_is_taken_up_as_it_was(
    make_store: Callable[[], ObjectStore], tmp_path: Path
) -> None:
    folder = tmp_path / "state" / "s3" / "bucket"
    files = {"a%": b"object", "a/b%25": b"below", "c": b"without a note"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    status = (folder / "a%").stat()
    note = {"bucket": "bucket", "key": "a", "stamp": [status.st_size, status.st_mtime_ns], "etag": "1-2"}
    note["metadata"] = {"content-type": "text/plain", "x-amz-meta-who": "me"}
    Journal(tmp_path / "state" / "s3.jsonl").append(note)
    store = make_store()
    assert {key: store.read(f"s3://bucket/{key}") for key in store.keys("s3://bucket/")} == {
        "a": b"object",
        "a/b%": b"below",
        "c": b"without a note",
    }
    known = store._backend.get_object("bucket", "a")
    assert (known.etag, known.metadata["x-amz-meta-who"], known.version_id) == ('"1-2"', "me", "null")
    store.put("s3://bucket/c", b"new")
    assert make_store().read("s3://bucket/c") == b"new" and sorted(path.name for path in folder.iterdir()) == [
        "a",
        "a%",
        "c",
    ]


def test_a_name_may_be_an_object_and_a_folder(make_store: Callable[[], ObjectStore]) -> None:
    store = make_store()
    store._backend.create_bucket("bucket", "us-east-1")
    for key in ("a", "a/b", "c/d", "c", "e/", "../x"):
        store.put(f"s3://bucket/{key}", key.encode())
    for opened in (store, make_store()):
        assert {k: opened.read(f"s3://bucket/{k}") for k in ("a", "a/b", "c/d", "c")} == {
            k: k.encode() for k in ("a", "a/b", "c/d", "c")
        }
        assert opened.keys("s3://bucket/c") == ["c"]
        assert opened.keys("s3://bucket/") == ["../x", "a", "a/b", "c", "c/d"]


def test_a_deleted_object_is_gone_from_disk(store: ObjectStore, tmp_path: Path) -> None:
    store.put("s3://bucket/deep/er/x", b"1")
    store._backend.delete_object("bucket", "deep/er/x")
    assert not store.exists("s3://bucket/deep/er/x")
    assert not (tmp_path / "state" / "s3" / "bucket").exists()
    store._backend.delete_bucket("bucket")
    assert not (tmp_path / "state" / "s3" / "bucket").exists()


def test_a_reader_never_sees_another_objects_bytes_as_its_own(store: ObjectStore) -> None:
    store.put("s3://bucket/x", b"old")
    held = store._backend.get_object("bucket", "x")
    opened = held.value
    store.put("s3://bucket/x", b"new!")
    assert (bytes(opened), bytes(held.value), store.read("s3://bucket/x")) == (b"old", b"old", b"new!")


def test_a_versioned_bucket_keeps_former_versions(store: ObjectStore) -> None:
    store._backend.put_bucket_versioning("bucket", "Enabled")
    first = store._backend.put_object("bucket", "x", b"1").version_id
    store._backend.put_object("bucket", "x", b"2")
    store._backend.delete_object("bucket", "x")
    assert store._backend.get_object("bucket", "x") is None
    assert bytes(store._backend.get_object("bucket", "x", first).value) == b"1"


def test_a_linked_file_costs_no_copy(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"data")
    store.put("s3://bucket/linked", source)
    assert store.file("s3://bucket/linked").stat().st_ino == source.stat().st_ino


def test_a_prefix_is_a_folder_not_the_beginning_of_a_name(store: ObjectStore) -> None:
    for key in ("run/a", "run/b", "running/c"):
        store.put(f"s3://bucket/{key}", b"")
    assert store.keys("s3://bucket/run") == store.keys("s3://bucket/run/") == ["run/a", "run/b"]


@pytest.mark.parametrize("uri", ["bucket/key", "https://bucket/key", "s3:///key", ""])
def test_what_is_no_uri_is_named(uri: str) -> None:
    with pytest.raises(StepFailureError, match=r"ClientError: .* is not an s3:// address"):
        bucket_and_key(uri)


def test_a_missing_bucket_and_object_are_named(store: ObjectStore) -> None:
    with pytest.raises(StepFailureError, match="no bucket 'missing'"):
        store.keys("s3://missing/x")
    with pytest.raises(StepFailureError, match="no object s3://bucket/x"):
        store.read("s3://bucket/x")
