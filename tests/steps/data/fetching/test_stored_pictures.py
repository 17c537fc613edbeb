import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from steps.data.causes import FetchError
from steps.data.fetching.stored_pictures import StoredPictures
from steps.errors import StepError
from tests.steps.data.fates import open_table
from tests.steps.data.web import picture


def rows(folder: Path, source: str, *columns: str) -> list[tuple[Any, ...]]:
    table = open_table(folder, source=source)
    found: list[tuple[Any, ...]] = []
    for batch in table.batches(columns):
        found += zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    return found


def pictures_of(folder: Path, source: str) -> list[bytes]:
    pictures = StoredPictures(str(folder), 1 << 20)
    return [pictures.fetch(address) for (address,) in rows(folder, source, "url")]


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_folder_of_pictures_has_its_captions_from_metadata_or_from_the_text_beside(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name, number in (("a.jpg", 1), ("more/b.PNG", 2), ("c#1.jpeg", 3), ("d.jpg", 4)):
        (tmp_path / name).write_bytes(picture(number))
    lines: list[dict[str, object]] = [{"file_name": "a.jpg", "text": "first", "similarity": 0.3}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    (tmp_path / "more" / "metadata.jsonl").write_text(json.dumps({"file_name": "b.PNG", "caption": "second"}))
    (tmp_path / "c#1.txt").write_text("third\n")
    assert rows(tmp_path, "pictures", "url", "caption", "similarity") == [
        ("a.jpg", "first", 0.3),
        ("c#1.jpeg", "third", None),
        ("d.jpg", None, None),
        ("more/b.PNG", "second", None),
    ]
    assert pictures_of(tmp_path, "pictures") == [picture(number) for number in (1, 3, 4, 2)]


def test_metadata_cannot_name_files_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jpg").write_bytes(picture(2))
    (tmp_path / "set" / "metadata.jsonl").write_text(
        '{"file_name": "../secret.jpg", "text": "x"}\n{"file_name": "a.jpg", "text": "y"}\n'
    )
    assert rows(tmp_path / "set", "pictures", "url", "caption") == [("a.jpg", "y")]


def test_webdataset_shards_are_read_in_place(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar", {"k1.jpg": picture(1), "k1.txt": b"one", "k1.json": b'{"caption": "no", "width": 96}'}
    )
    members = {"x/k2.json": b'{"caption": "two", "exif": {}}', "x/k2.png": picture(2, kind="PNG"), "k3.txt": b"alone"}
    write_tar(tmp_path / "more" / "1.tar", members)
    assert rows(tmp_path, "webdataset", "caption", "width") == [("one", 96), ("two", None)]
    assert pictures_of(tmp_path, "webdataset") == [picture(1), picture(2, kind="PNG")]


def test_members_that_lead_elsewhere_are_read_in_place_and_links_are_none(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture(9))
    members = {name: picture(1) for name in ("../../evil.jpg", "/etc/evil.jpg", "a/../../b.jpg")} | {
        "a/../../b.txt": b"b"
    }
    write_tar(tmp_path / "set" / "0.tar", members)
    with tarfile.open(tmp_path / "set" / "0.tar", "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo(f"link{kind.decode()}.jpg")
            link.type, link.linkname = kind, str(tmp_path / "secret.jpg")
            tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    # An address is a tar and a range of its bytes, never a member's name.
    assert [address.split("#")[0] for (address,) in rows(tmp_path / "set", "webdataset", "url")] == ["0.tar"] * 3
    assert pictures_of(tmp_path / "set", "webdataset") == [picture(1)] * 3
    assert sorted(tmp_path.rglob("*")) == before


def header_bomb() -> bytes:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 64 * 2**20
    return header.tobuf() + bytes(64 * 2**20)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"k.jpg": b"", "k.txt": bytes(2 << 20)}, r"0\.tar: k\.txt has 2097152 bytes, and at most 1048576"),
        ({"k.jpg": b"", "k.json": b"[" * 100_000}, r"0\.tar: k\.json is no JSON"),
        ({"k.jpg": b"", "k.json": b"{"}, r"0\.tar: k\.json is no JSON"),
        (None, r"0\.tar: ReadError: a header of 67108864 bytes"),
    ],
)
def test_a_shard_made_to_exhaust_the_memory_is_refused(
    tmp_path: Path, members: dict[str, bytes] | None, message: str
) -> None:
    if members is None:
        (tmp_path / "0.tar").write_bytes(header_bomb())
    else:
        write_tar(tmp_path / "0.tar", members)
    with pytest.raises(StepError, match=message):
        open_table(tmp_path, source="webdataset")


def test_another_caption_is_another_table(tmp_path: Path) -> None:
    digests = []
    for caption in (b"one", b"two"):
        write_tar(tmp_path / "0.tar", {"k.jpg": picture(1), "k.txt": caption})
        digests.append(open_table(tmp_path, source="webdataset").digest)
    assert digests[0] != digests[1]


def test_what_is_no_picture_or_too_large_or_gone_is_one_row_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(picture(1) + bytes(5000))
    write_tar(tmp_path / "0.tar", {"k.jpg": bytes(6000)})
    pictures = StoredPictures(str(tmp_path), 5000)
    for address, cause in (
        ("large.jpg", "body_too_large"),
        ("gone.jpg", "missing"),
        ("0.tar#512-6512", "body_too_large"),
        ("0.tar#512-700", "not_a_picture"),
    ):
        with pytest.raises(FetchError) as raised:
            pictures.fetch(address)
        assert raised.value.cause == cause


@pytest.mark.parametrize(
    ("source", "files", "message"),
    [
        ("webdataset", {"a.jpg": b""}, r"no \.tar .*under"),
        ("webdataset", {"a.tar": b"x" * 600}, r"a\.tar: ReadError"),
        ("pictures", {"a.txt": b""}, r"no picture .* under"),
        ("pictures", {"a.jpg": b""}, r"no picture under .* has a caption"),
        (
            "pictures",
            {"a.jpg": b"", "metadata.jsonl": b'{"file": "a.jpg"}'},
            r"metadata\.jsonl line 1: has no file_name",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, source: str, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StepError, match=message):
        open_table(tmp_path, source=source)
