import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from pipeline_definition.local.folder_sync import FolderSync
from pipeline_definition.local.object_store import ObjectStore

URI = "s3://bucket/checkpoints"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoints"
    made.mkdir()
    return made


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_a_manifest_never_appears_before_its_data(store: ObjectStore, folder: Path) -> None:
    """A writer that never pauses, and a look at S3 after each push."""
    done = threading.Event()

    def writer() -> None:
        for number in range(150):
            for part in range(3):
                write(folder / f"z{number:03d}" / f"part-{part}", bytes([number]) * 500)
            write(folder / f"a{number:03d}.json", json.dumps({"parts": 3}).encode())
        done.set()

    thread = threading.Thread(target=writer)
    thread.start()
    sync = FolderSync(store, folder, URI)
    while not done.is_set():
        sync.push()
        check_manifests(store)
    thread.join()
    sync.push(final=True)
    assert check_manifests(store) == 150


def check_manifests(store: ObjectStore) -> int:
    keys = set(store.keys(URI))
    manifests = [key for key in keys if key.endswith(".json")]
    for manifest in manifests:
        number = manifest.removesuffix(".json")[-3:]
        for part in range(3):
            key = f"checkpoints/z{number}/part-{part}"
            assert key in keys and len(store.read(f"s3://bucket/{key}")) == 500
    return len(manifests)


def test_only_what_changed_is_sent_again(store: ObjectStore, folder: Path) -> None:
    write(folder / "a", b"1")
    write(folder / "b", b"1")
    sync = FolderSync(store, folder, URI)
    assert sync.push(final=True) == 2
    assert sync.push(final=True) == 0
    write(folder / "b", b"22")
    assert sync.push(final=True) == 1
    assert store.read(f"{URI}/b") == b"22"


def test_a_file_that_was_just_written_waits_for_the_next_look(store: ObjectStore, folder: Path) -> None:
    write(folder / "a", b"1")
    future_s = time.time() + 100
    os.utime(folder / "a", (future_s, future_s))
    sync = FolderSync(store, folder, URI)
    assert sync.push() == 0
    assert sync.push(final=True) == 1


def test_a_file_that_changes_while_it_is_copied_is_not_sent_torn(
    store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "a", b"old")
    os.utime(folder / "a", (1, 1))
    write(folder / "b", b"later")
    os.utime(folder / "b", (2, 2))
    copy = shutil.copyfile

    def copy_while_it_changes(source: Path, target: Path) -> None:
        copy(source, target)
        write(Path(source), b"changed")

    sync = FolderSync(store, folder, URI)
    monkeypatch.setattr(shutil, "copyfile", copy_while_it_changes)
    assert sync.push() == 0
    assert store.keys(URI) == []
    monkeypatch.undo()
    assert sync.push(final=True) == 2
    assert store.read(f"{URI}/a") == b"changed"


def test_what_was_fetched_is_not_sent_back(store: ObjectStore, folder: Path) -> None:
    store.put(f"{URI}/deep/a", b"1")
    sync = FolderSync(store, folder, URI)
    sync.fetch()
    assert sync.files == 1
    assert (folder / "deep" / "a").read_bytes() == b"1"
    assert sync.push(final=True) == 0


def test_a_prefix_without_checkpoints_is_no_error(store: ObjectStore, folder: Path) -> None:
    sync = FolderSync(store, folder, URI)
    sync.fetch()
    assert sync.files == 0
