from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from pipeline_definition.errors import OperatorError
from pipeline_definition.runs.upload import Upload

PREFIX = "s3://bucket/own/photos"


@pytest.fixture
def s3() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("a.jpg", b"one"), ("more/b.jpg", b"two"), ("c.jpg", b"one")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def upload(s3: Any, folder: Path, **options: Any) -> Upload:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return Upload(s3, PREFIX, files, **options)


def content(s3: Any, name: str) -> bytes:
    body: bytes = s3.get_object(Bucket="bucket", Key=f"own/photos/{name}")["Body"].read()
    return body


def test_a_content_is_sent_once_and_copied_within_s3_under_its_other_names(s3: Any, folder: Path) -> None:
    seen: list[int] = []
    assert upload(s3, folder).send(seen.append) == {"sent": 2, "copied": 1, "there": 0}
    assert (content(s3, "a.jpg"), content(s3, "more/b.jpg"), content(s3, "c.jpg")) == (b"one", b"two", b"one")
    assert sum(seen) == 9


def test_s3_is_told_the_sha256_to_verify_and_to_hold(s3: Any, folder: Path) -> None:
    told: list[str] = []
    s3.meta.events.register(
        "before-call.s3.PutObject", lambda params, **_: told.append(params["headers"]["x-amz-checksum-sha256"])
    )
    upload(s3, folder).send()
    assert "dpLDrTVAu4A8Ags67mbNiIcSMjTqDG5xQ8Ct1z/0Me0=" in told
    metadata = s3.head_object(Bucket="bucket", Key="own/photos/a.jpg")["Metadata"]
    assert metadata["sha256"] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


def test_an_upload_that_was_interrupted_goes_on_with_what_is_missing(s3: Any, folder: Path) -> None:
    Upload(s3, PREFIX, {"a.jpg": folder / "a.jpg"}).send()
    assert upload(s3, folder).send() == {"sent": 1, "copied": 1, "there": 1}
    assert upload(s3, folder).send() == {"sent": 0, "copied": 0, "there": 3}


def test_what_differs_is_named_and_nothing_is_sent_or_overwritten_unasked(s3: Any, folder: Path) -> None:
    s3.put_object(Bucket="bucket", Key="own/photos/a.jpg", Body=b"theirs")
    with pytest.raises(OperatorError, match=r"own/photos/a\.jpg: another content lies there.*--replace"):
        upload(s3, folder).send()
    assert content(s3, "a.jpg") == b"theirs" and list(upload(s3, folder).there) == ["a.jpg"]
    upload(s3, folder, replace=True).send()
    assert content(s3, "a.jpg") == b"one"


def test_the_same_bytes_put_there_by_another_tool_count_as_there(s3: Any, folder: Path) -> None:
    s3.put_object(Bucket="bucket", Key="own/photos/more/b.jpg", Body=b"two")
    s3.put_object(Bucket="bucket", Key="own/photos/c.jpg", Body=b"ONE")  # as long, and another content
    files = upload(s3, folder)
    assert (files.differing, files.missing) == (["c.jpg"], ["a.jpg"])


def test_an_object_that_appears_meanwhile_is_not_overwritten(s3: Any, folder: Path) -> None:
    late = upload(s3, folder)
    assert late.there == {}
    s3.put_object(Bucket="bucket", Key="own/photos/more/b.jpg", Body=b"theirs")
    with pytest.raises(OperatorError, match="appeared during the upload"):
        late.send()
    assert content(s3, "more/b.jpg") == b"theirs"


def test_large_files_go_in_parts(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_definition.runs.upload.ONE_REQUEST_BYTES", 1 << 20)
    (tmp_path / "big.tar").write_bytes(bytes(9 << 20))
    upload(s3, tmp_path).send()
    assert s3.head_object(Bucket="bucket", Key="own/photos/big.tar")["ETag"].endswith('-2"')
    assert upload(s3, tmp_path).send() == {"sent": 0, "copied": 0, "there": 1}
