import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.object_store import ObjectStore
from pipeline_definition.local.storage import fetch_prefix, fetch_source, send_folder


def source(uri: str, distribution: str = "FullyReplicated", kind: str = "S3Prefix") -> dict[str, Any]:
    return {"S3Uri": uri, "S3DataType": kind, "S3DataDistributionType": distribution}


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.integers(1, 12), st.integers(1, 5), st.randoms())
def test_sharded_by_key_gives_every_object_to_exactly_one_host(
    store: ObjectStore, tmp_path: Path, objects: int, hosts: int, random: Any
) -> None:
    case = uuid.uuid4().hex
    keys = [f"{number:02d}.tar" for number in range(objects)]
    for key in random.sample(keys, len(keys)):
        store.put(f"s3://bucket/{case}/{key}", b"")
    parts = []
    for host in range(hosts):
        folder = tmp_path / case / str(host)
        fetch_source(store, source(f"s3://bucket/{case}/", "ShardedByS3Key"), folder, host, hosts)
        parts.append(names(folder))
    assert sorted(name for part in parts for name in part) == keys
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_fully_replicated_gives_everything_to_every_host(store: ObjectStore, tmp_path: Path) -> None:
    for key in ("in/a", "in/deep/b"):
        store.put(f"s3://bucket/{key}", key.encode())
    for host in range(2):
        fetch_source(store, source("s3://bucket/in"), tmp_path / str(host), host, 2)
        assert names(tmp_path / str(host)) == ["a", "deep/b"]


def test_one_object_lands_under_its_own_name_and_may_be_written_to(store: ObjectStore, tmp_path: Path) -> None:
    store.put("s3://bucket/in/model.tar.gz", b"model")
    fetch_prefix(store, "s3://bucket/in/model.tar.gz", tmp_path / "in")
    (tmp_path / "in" / "model.tar.gz").write_bytes(b"changed")
    assert store.read("s3://bucket/in/model.tar.gz") == b"model"


def test_an_empty_prefix_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StepFailureError, match="no objects under s3://bucket/none"):
        fetch_prefix(store, "s3://bucket/none", tmp_path / "in")


def test_a_key_never_leads_out_of_its_folder(store: ObjectStore, tmp_path: Path) -> None:
    store.put("s3://bucket/in/../../evil", b"")
    with pytest.raises(StepFailureError, match="leads out of its folder"):
        fetch_prefix(store, "s3://bucket/in", tmp_path / "deep" / "in")
    assert names(tmp_path / "deep") == []


def test_a_folder_becomes_objects(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "a").write_bytes(b"a")
    send_folder(store, tmp_path / "out", "s3://bucket/out/")
    assert store.read("s3://bucket/out/deep/a") == b"a"


def test_a_source_is_all_that_begins_like_its_address(store: ObjectStore, tmp_path: Path) -> None:
    for key in ("in/train.csv", "in/train/a", "in/training/b", "in/other"):
        store.put(f"s3://bucket/{key}", b"x")
    fetch_source(store, source("s3://bucket/in/train"), tmp_path / "got", 0, 1)
    assert names(tmp_path / "got") == ["a", "train.csv", "training/b"]
