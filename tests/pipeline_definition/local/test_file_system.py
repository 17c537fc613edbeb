from pathlib import Path
from typing import Any

import pytest

from pipeline_definition.local.errors import RefusedRequestError, StepFailureError
from pipeline_definition.local.file_system import FileSystems
from pipeline_definition.local.object_store import ObjectStore

LUSTRE = {"FileSystemType": "LUSTRE", "StorageCapacity": 1200, "SubnetIds": ["subnet-0123456789abcdef0"]}


@pytest.fixture
def systems(store: ObjectStore, tmp_path: Path) -> FileSystems:
    return FileSystems(tmp_path / "fsx", tmp_path / "records", store)


def made(systems: FileSystems, **association: Any) -> str:
    name = str(systems.create_file_system(LUSTRE)["FileSystem"]["FileSystemId"])
    wanted = {"FileSystemPath": "/latents", "DataRepositoryPath": "s3://bucket/latents/", **association}
    systems.create_data_repository_association({"FileSystemId": name, **wanted})
    return name


def channel(name: str, path: str = "/fsx/latents") -> dict[str, str]:
    return {"FileSystemId": name, "FileSystemType": "FSxLustre", "FileSystemAccessMode": "ro", "DirectoryPath": path}


def test_a_mount_shows_the_prefix_and_later_what_is_new_or_changed(systems: FileSystems, store: ObjectStore) -> None:
    store.put("s3://bucket/latents/a", b"1")
    store.put("s3://bucket/latents/deep/b", b"1")
    name = made(systems)
    folder = systems.mount(channel(name))
    untouched = (folder / "deep" / "b").stat()
    store.put("s3://bucket/latents/a", b"2")
    store.put("s3://bucket/latents/c", b"3")
    assert systems.mount(channel(name)) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == {"a": b"2", "c": b"3"}
    assert (folder / "deep" / "b").stat().st_ino == untouched.st_ino


@pytest.mark.parametrize(("events", "left"), [(["NEW", "CHANGED", "DELETED"], []), (["NEW", "CHANGED"], ["a"])])
def test_a_deleted_object_goes_where_the_policy_says_so(
    systems: FileSystems, store: ObjectStore, events: list[str], left: list[str]
) -> None:
    store.put("s3://bucket/latents/a", b"1")
    name = made(systems, S3={"AutoImportPolicy": {"Events": events}})
    systems.mount(channel(name))
    store._backend.delete_object("bucket", "latents/a")
    assert [path.name for path in systems.mount(channel(name)).iterdir()] == left


def test_a_folder_below_the_association_can_be_mounted(systems: FileSystems, store: ObjectStore) -> None:
    store.put("s3://bucket/latents/laion/x", b"1")
    assert (systems.mount(channel(made(systems), "/fsx/latents/laion")) / "x").read_bytes() == b"1"


def test_a_mounted_file_is_not_the_object_itself(systems: FileSystems, store: ObjectStore) -> None:
    store.put("s3://bucket/latents/a", b"1")
    (systems.mount(channel(made(systems))) / "a").write_bytes(b"spoilt")
    assert store.read("s3://bucket/latents/a") == b"1"


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("fs-00000000000000000", "/fsx/latents", "there is no file system fs-00000000000000000"),
        ("", "/other/latents", "does not begin with /fsx"),
        ("", "/fsx/missing", "has no folder '/fsx/missing'"),
        ("", "/fsx/../../etc", "leads out of its folder"),
    ],
)
def test_what_is_not_there_is_named(
    systems: FileSystems, store: ObjectStore, name: str, path: str, message: str
) -> None:
    store.put("s3://bucket/latents/a", b"1")
    own = made(systems)
    with pytest.raises(StepFailureError, match=message):
        systems.mount(channel(name or own, path))


def test_file_systems_and_associations_outlive_the_process(
    systems: FileSystems, store: ObjectStore, tmp_path: Path
) -> None:
    name = made(systems)
    again = FileSystems(tmp_path / "fsx", tmp_path / "records", store)
    system = again.describe_file_systems({"FileSystemIds": [name]})["FileSystems"][0]
    assert (system["Lifecycle"], system["LustreConfiguration"]["MountName"]) == ("AVAILABLE", "fsx")
    filters = [{"Name": "file-system-id", "Values": [name]}]
    found = again.describe_data_repository_associations({"Filters": filters})["Associations"]
    assert [(a["FileSystemPath"], a["DataRepositoryPath"]) for a in found] == [("/latents", "s3://bucket/latents/")]


def test_overlapping_associations_and_unknown_file_systems_are_refused(systems: FileSystems) -> None:
    name = made(systems)
    with pytest.raises(RefusedRequestError, match="overlaps"):
        systems.create_data_repository_association(
            {"FileSystemId": name, "FileSystemPath": "/latents/deep", "DataRepositoryPath": "s3://bucket/x"}
        )
    with pytest.raises(RefusedRequestError, match="no file system 'fs-1'"):
        systems.describe_file_systems({"FileSystemIds": ["fs-1"]})
    with pytest.raises(RefusedRequestError, match="only LUSTRE"):
        systems.create_file_system({**LUSTRE, "FileSystemType": "WINDOWS"})
