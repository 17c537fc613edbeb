"""The local S3 over HTTP, as other programs use it: whole and by ranges, while objects change, over a restart."""

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from pipeline_definition.local.object_store import ObjectStore
from tests.pipeline_definition.local.conftest import World

ONCE = Config(retries={"total_max_attempts": 1})
SIZE = 64 << 20
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def memory_mb(world: World) -> float:
    """Return the peak since the last look."""
    assert world.plane is not None
    status = Path(f"/proc/{world.plane.pid}")
    line = next(line for line in (status / "status").read_text().splitlines() if line.startswith("VmHWM"))
    (status / "clear_refs").write_text("5")
    return int(line.split()[1]) / 1024


@on_linux
def test_an_object_goes_up_and_down_without_being_held_in_memory(world: World, tmp_path: Path) -> None:
    s3 = world.client("s3")
    (tmp_path / "big").write_bytes(os.urandom(SIZE))
    memory_mb(world)
    before_mb = memory_mb(world)
    s3.upload_file(str(tmp_path / "big"), "bucket", "big")
    assert memory_mb(world) - before_mb < 160
    before_mb = memory_mb(world)
    for start in range(0, SIZE, SIZE // 20):
        part = s3.get_object(Bucket="bucket", Key="big", Range=f"bytes={start}-{start + 999}")
        assert part["ContentRange"].startswith(f"bytes {start}-") and len(part["Body"].read()) <= 1000
    s3.download_file("bucket", "big", str(tmp_path / "down"))
    body = s3.get_object(Bucket="bucket", Key="big")["Body"].iter_chunks(1 << 20)
    whole, digest = hashlib.sha256((tmp_path / "big").read_bytes()).digest(), hashlib.sha256()
    for block in body:
        digest.update(block)
    assert digest.digest() == hashlib.sha256((tmp_path / "down").read_bytes()).digest() == whole
    assert memory_mb(world) - before_mb < 32
    upload = s3.create_multipart_upload(Bucket="bucket", Key="given-up")["UploadId"]
    s3.upload_part(Bucket="bucket", Key="given-up", UploadId=upload, PartNumber=1, Body=b"x")
    assert len(list((world.folder / "state" / "s3" / ".incoming").iterdir())) == 1
    s3.abort_multipart_upload(Bucket="bucket", Key="given-up", UploadId=upload)
    assert list((world.folder / "state" / "s3" / ".incoming").iterdir()) == []


def test_no_read_fails_while_its_object_is_replaced(world: World) -> None:
    world.put("status", b"0" * 1000)
    over, seen = threading.Event(), []

    def write() -> None:
        for number in range(200):
            world.put("status", b"%d" % (number % 10) * 1000)
        over.set()

    def read() -> None:
        s3 = World.client(world, "s3", ONCE)
        while not over.is_set():
            with contextlib.suppress(ClientError):
                seen.append(s3.get_object(Bucket="bucket", Key="status")["Body"].read())
                continue
            seen.append(b"")

    threads = [threading.Thread(target=run) for run in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) > 20 and all(len(body) == 1000 and len(set(body)) == 1 for body in seen)


@pytest.mark.parametrize(
    "key", ["L" * 300, "\u65e5" * 100, "nl\nkey", "/".join(["k" * 255] * 4), "c//d", "e/../f", "p%4%/%"]
)
def test_any_key_is_written_read_and_listed(world: World, key: str) -> None:
    world.put(key, b"x")
    assert world.get(key) == b"x" and key in world.keys("")


def test_a_key_above_1024_bytes_is_refused_by_name(world: World) -> None:
    with pytest.raises(ClientError, match="KeyTooLongError"):
        world.put("/".join(["k" * 200] * 6), b"x")


def versions(s3: Any) -> list[tuple[str, bool, bytes | None]]:
    """Return (key, is latest, bytes) of all versions; None: a delete marker."""
    page = s3.list_object_versions(Bucket="versioned")
    found = [
        (item["Key"], item["IsLatest"], s3.get_object(Bucket="versioned", Key=item["Key"], VersionId=item["VersionId"]))
        for item in page.get("Versions", [])
    ]
    read = [(key, is_latest, answer["Body"].read()) for key, is_latest, answer in found]
    return sorted([*read, *((item["Key"], item["IsLatest"], None) for item in page.get("DeleteMarkers", []))], key=str)


def test_versions_outlive_a_restart_and_no_list_changes_a_byte(own_world: World) -> None:
    s3, store = own_world.client("s3"), own_world.folder / "state" / "s3"
    own_world.put("plain", b"precious")
    s3.create_bucket(Bucket="versioned")
    s3.put_object(Bucket="versioned", Key="a", Body=b"before versions")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    made = [s3.put_object(Bucket="versioned", Key="a", Body=body)["VersionId"] for body in (b"1", b"2", b"3")]
    s3.put_object(Bucket="versioned", Key="gone", Body=b"secret", Metadata={"who": "me"}, ContentType="text/plain")
    s3.delete_object(Bucket="versioned", Key="gone")
    s3.delete_object(Bucket="versioned", Key="a", VersionId=made[1])

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()}

    before = files()
    wanted = versions(s3)
    assert [body for key, _, body in wanted if key == "a"] == [b"1", b"before versions", b"3"]
    assert files() == before and (store / "versioned" / "a").read_bytes() == b"3"
    own_world.kill()
    own_world.up()
    s3 = own_world.client("s3")
    assert versions(s3) == wanted and own_world.get("plain") == b"precious"
    assert s3.get_bucket_versioning(Bucket="versioned")["Status"] == "Enabled"
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="versioned", Key="gone")
    (marker,) = s3.list_object_versions(Bucket="versioned")["DeleteMarkers"]
    s3.delete_object(Bucket="versioned", Key="gone", VersionId=marker["VersionId"])
    back = s3.get_object(Bucket="versioned", Key="gone")
    assert (back["Body"].read(), back["Metadata"], back["ContentType"]) == (b"secret", {"who": "me"}, "text/plain")
    assert (store / "versioned" / "gone").read_bytes() == b"secret"


def test_a_failed_write_leaves_the_old_object_and_nothing_else(store: ObjectStore, tmp_path: Path) -> None:
    store.put("s3://bucket/x", b"old")

    def blocks() -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store._backend.put_object("bucket", "x", blocks())
    assert store.read("s3://bucket/x") == b"old"
    files = [path.relative_to(tmp_path / "state" / "s3") for path in (tmp_path / "state" / "s3").rglob("*")]
    assert sorted(map(str, files)) == [".incoming", "bucket", "bucket/x"]
