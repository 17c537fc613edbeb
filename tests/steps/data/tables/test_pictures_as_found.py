"""Folders and shards of pictures as people have them: where captions stand, and what is odd among them."""

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.data.causes import FetchError
from steps.data.fetching.stored_pictures import StoredPictures
from steps.errors import StepError
from tests.steps.data.fates import fates, open_table
from tests.steps.data.web import picture

COUNT = 6
CAPTIONS = [f"c {row}" for row in range(COUNT)]


def folder(path: Path, files: dict[str, str | bytes] | None = None, suffix: str = "jpg") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for row in range(COUNT):
        (path / f"{row}.{suffix}").write_bytes(picture(row))
    for name, content in (files or {}).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def metadata(key: str, values: list[Any], **more: Any) -> bytes:
    rows = [json.dumps({"file_name": f"{row}.jpg", key: value, **more}) for row, value in enumerate(values)]
    return "\n".join(rows).encode()


def beside(suffix: str, captions: list[str]) -> dict[str, str | bytes]:
    return {f"{row}.{suffix}": caption for row, caption in enumerate(captions)}


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(**of: Callable[[int], bytes]) -> dict[str, bytes]:
    return {f"{row:03d}.{suffix}": content(row) for row in range(COUNT) for suffix, content in of.items()}


def text(row: int) -> bytes:
    return CAPTIONS[row].encode()


PARQUET = io.BytesIO()
pq.write_table(pa.table({"file_name": [f"{row}.jpg" for row in range(COUNT)], "text": CAPTIONS}), PARQUET)


@pytest.mark.parametrize(
    "files",
    [
        {"metadata.jsonl": metadata("text", CAPTIONS)},
        {"metadata.jsonl": metadata("caption", CAPTIONS)},
        {"metadata.jsonl": metadata("prompt", CAPTIONS)},
        {"metadata.jsonl": metadata("text", CAPTIONS, hash=2**64 - 1, id=2**70, box=[1], deep={"a": 1})},
        {"metadata.jsonl": metadata("text", [[caption, "another"] for caption in CAPTIONS])},
        {"metadata.csv": "file_name,text\n" + "\n".join(f"{row}.jpg,c {row}" for row in range(COUNT))},
        {"metadata.parquet": PARQUET.getvalue()},
        beside("txt", CAPTIONS),
        beside("caption", [f" {caption}\n" for caption in CAPTIONS]),
        beside("jpg.txt", CAPTIONS),
        beside("TXT", CAPTIONS),
        {**beside("txt", CAPTIONS), **beside("caption", ["not this"] * COUNT)},
    ],
    ids=lambda files: next(iter(files)),
)
def test_captions_stand_in_metadata_or_beside_the_pictures(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    assert fates(folder(tmp_path, files), "pictures") == CAPTIONS


def test_a_caption_column_is_honoured_by_folders_and_shards(tmp_path: Path) -> None:
    rows = [json.dumps({"file_name": f"{row}.jpg", "text": "no", "mine": f"c {row}"}) for row in range(COUNT)]
    path = folder(tmp_path / "folder", {"metadata.jsonl": "\n".join(rows)})
    assert fates(path, "pictures", caption_column="mine") == CAPTIONS
    assert fates(path, "pictures", caption_column="TEXT") == ["no"] * COUNT
    with pytest.raises(
        StepError, match=r"neither theirs .*; its metadata have mine, text; .* download\.caption_column"
    ):
        open_table(path, "pictures", caption_column="theirs")
    facts = {"txt": lambda row: b"no", "json": lambda row: json.dumps({"mine": CAPTIONS[row]}).encode()}
    tar(tmp_path / "tars" / "0.tar", samples(jpg=picture, **facts))
    assert fates(tmp_path / "tars", "webdataset", caption_column="mine") == CAPTIONS
    assert fates(tmp_path / "tars", "webdataset", caption_column="TEXT") == ["no"] * COUNT


def test_pictures_without_a_caption_are_lost_under_a_cause_or_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    path = folder(tmp_path, beside("txt", ["c 0", "c 1", "  ", "\n"]))
    assert fates(path, "pictures") == ["c 0", "c 1", *["#no_caption"] * 4]
    assert fates(path, "pictures", keep_uncaptioned=True) == ["c 0", "c 1", None, None, None, None]
    bare = folder(tmp_path / "bare")
    with pytest.raises(StepError, match=r"no picture under .* set download\.keep_uncaptioned"):
        open_table(bare, "pictures")
    assert fates(bare, "pictures", keep_uncaptioned=True) == [None] * COUNT


def test_each_line_of_a_caption_file_is_a_caption_where_that_is_asked_for(tmp_path: Path) -> None:
    path = folder(tmp_path / "folder", beside("txt", [f"a {row}\r\n\nb {row}\n" for row in range(COUNT)]))
    assert fates(path, "pictures") == [f"a {row}\r\n\nb {row}" for row in range(COUNT)]
    assert fates(path, "pictures", caption_lines=True) == [f"a {row}" for row in range(COUNT)]
    several = [[f"a {row}", f"b {row}"] for row in range(COUNT)]
    assert fates(path, "pictures", caption_lines=True, captions="all") == several
    tar(tmp_path / "tars" / "0.tar", samples(jpg=picture, txt=lambda row: f"a {row}\nb {row}".encode()))
    assert fates(tmp_path / "tars", "webdataset", caption_lines=True, captions="all") == several


def test_a_line_separator_of_unicode_ends_no_line(tmp_path: Path) -> None:
    captions = [f"one\u2028two\u0085three {row}" for row in range(COUNT)]
    rows = [f'{{"file_name": "{row}.jpg", "text": "{caption}"}}' for row, caption in enumerate(captions)]
    assert fates(folder(tmp_path, {"metadata.jsonl": "\n".join(rows)}), "pictures") == captions


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"metadata.jsonl": metadata("text", ["café"]).replace(b"\\u00e9", b"\xe9")},
            r"metadata\.jsonl line 1: .* UTF-8",
        ),
        (beside("txt", []) | {"0.txt": b"caf\xe9"}, r"0\.txt: the caption is no text"),
    ],
)
def test_a_folder_that_is_not_utf8_is_named_with_its_line(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    path = folder(tmp_path, files)
    with pytest.raises(StepError, match=message):
        open_table(path, "pictures")
    (path / "1.txt").write_text("c 1")
    assert fates(path, "pictures") == ["#bad_text", "c 1", *["#no_caption"] * 4]


def test_half_an_emoji_costs_its_picture(tmp_path: Path) -> None:
    lines = metadata("text", [*CAPTIONS[:-1], "cut in an emoji \ud83d"])
    assert fates(folder(tmp_path, {"metadata.jsonl": lines}), "pictures") == [*CAPTIONS[:-1], "#bad_text"]


def test_a_line_of_metadata_that_names_no_file_is_set_aside_and_counted(tmp_path: Path) -> None:
    lines = metadata("text", CAPTIONS) + b'\n{"text": "whose?"}\n{"file_na'
    path = folder(tmp_path, {"metadata.jsonl": lines})
    assert fates(path, "pictures") == CAPTIONS
    assert open_table(path, "pictures").oddities.set_aside == {"metadata_line": 2}


def test_what_computers_leave_in_folders_is_no_picture(tmp_path: Path) -> None:
    debris = ("._0.jpg", "__MACOSX/._0.jpg", "__MACOSX/1.jpg", ".ipynb_checkpoints/0-checkpoint.jpg", "@eaDir/2.jpg")
    files = {**beside("txt", CAPTIONS), **dict.fromkeys(debris, b"\x00\x05\x16\x07")}
    assert fates(folder(tmp_path / "folder", files), "pictures") == CAPTIONS
    members = samples(jpg=picture, txt=text)
    tar(tmp_path / "tars" / "0.tar", {**members, **{f"._{name}": b"\x00" for name in members}})
    (tmp_path / "tars" / "._0.tar").write_bytes(b"\x00\x05\x16\x07")
    assert fates(tmp_path / "tars", "webdataset") == CAPTIONS


@pytest.mark.parametrize("suffix", ["jfif", "JPEG", "tif", "tiff", "avif", "jp2", "heic", "jxl", "gif", "bmp"])
def test_pictures_are_known_by_every_usual_name(tmp_path: Path, suffix: str) -> None:
    assert fates(folder(tmp_path, beside("txt", CAPTIONS), suffix), "pictures") == CAPTIONS


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_parquet_of_pictures_is_read_in_place(tmp_path: Path, kind: str) -> None:
    contents = [picture(row) for row in range(100)]
    struct = [{"bytes": content, "path": None} for content in contents]
    table = pa.table(
        {
            "image": struct if kind == "struct" else contents,
            "text": [f"c {row}" for row in range(100)],
            "score": [row / 100 for row in range(100)],
        }
    )
    pq.write_table(table, tmp_path / "train-00000.parquet", row_group_size=40)
    pq.write_table(table.slice(0, 1), tmp_path / "train-00001.parquet")
    assert fates(tmp_path, "pictures") == [*table["text"].to_pylist(), "c 0"]
    assert fates(tmp_path, "pictures", min_similarity=0.5, score_columns=("similarity=score",))[49:51] == [
        "#similarity",
        "c 50",
    ]
    pictures = StoredPictures(str(tmp_path), 1 << 20)
    urls = [url or "" for part in open_table(tmp_path, "pictures").shards(1000) for url in part.urls]
    assert [pictures.fetch(url) for url in urls] == [*contents, contents[0]]
    assert [pictures.fetch(url) for url in reversed(urls)] == [contents[0], *reversed(contents)]
    with pytest.raises(FetchError, match="body_too_large"):
        StoredPictures(str(tmp_path), 10).fetch(urls[0])
    with pytest.raises(StepError, match=r"has no column theirs or THEIRS; it has image, text, score; .*caption_column"):
        open_table(tmp_path, "pictures", caption_column="theirs")


def test_a_row_of_parquet_without_bytes_is_missing(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": "/etc/passwd"}, {"bytes": picture(1), "path": "1.jpg"}]
    pq.write_table(pa.table({"image": rows, "text": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(FetchError) as raised:
        StoredPictures(str(tmp_path), 1 << 20).fetch("t.parquet#0:0")
    assert raised.value.cause == "missing"


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tgz"])
def test_compressed_shards_are_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from steps.data.fetching import stored_pictures

    monkeypatch.setattr(stored_pictures, "WINDOW_BYTES", 5000)
    monkeypatch.setattr(stored_pictures, "BLOCK_BYTES", 1000)
    content = tar(tmp_path / "0.tar", samples(jpg=picture, txt=text)).read_bytes()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(gzip.compress(content))
    assert fates(tmp_path / "set", "webdataset") == CAPTIONS
    urls = [url or "" for part in open_table(tmp_path / "set", "webdataset").shards(9) for url in part.urls]
    pictures = StoredPictures(str(tmp_path / "set"), 1 << 20)
    assert [pictures.fetch(url) for url in urls] == [picture(row) for row in range(COUNT)]
    assert [pictures.fetch(url) for url in reversed(urls)] == [picture(row) for row in reversed(range(COUNT))]


@pytest.mark.parametrize(
    ("members", "set_aside"),
    [
        (samples(jpg=picture, txt=text, json=lambda row: b"{" if row == 3 else b"{}"), {"unread_json": 1}),
        (samples(jpg=picture, txt=text, json=lambda row: b"[" * (2 << 20) if row == 0 else b"{}"), {"long_json": 1}),
        (samples(jpg=picture, json=lambda row: json.dumps({"caption": [f"c {row}", "no"]}).encode()), {}),
        (samples(jpg=picture, json=lambda row: json.dumps({"prompt": f"c {row}"}).encode()), {}),
        (samples(jpg=picture, caption=text), {}),
        ({f"dir.v2/{name}": of for name, of in samples(**{"part.jpg": picture, "part.txt": text}).items()}, {}),
        (samples(**{"PNG": lambda row: picture(row, kind="PNG"), "txt": text, "cls": lambda row: b"1"}), {}),
        (samples(**{"mask.png": lambda row: b"mask", "jpg": picture, "seg.png": lambda row: b"seg", "txt": text}), {}),
        ({f"./{name}": of for name, of in samples(jpg=picture, txt=text).items()}, {}),
    ],
    ids=["bad json", "long json", "list", "prompt", "caption", "dotted fields", "upper case", "masks", "dot slash"],
)
def test_shards_are_read_whatever_stands_beside_their_pictures(
    tmp_path: Path, members: dict[str, bytes], set_aside: dict[str, int]
) -> None:
    tar(tmp_path / "0.tar", members)
    assert fates(tmp_path, "webdataset") == CAPTIONS
    assert open_table(tmp_path, "webdataset").oddities.set_aside == set_aside
    kind = "PNG" if any(name.endswith("PNG") for name in members) else "JPEG"
    urls = [url or "" for part in open_table(tmp_path, "webdataset").shards(9) for url in part.urls]
    pictures = StoredPictures(str(tmp_path), 1 << 20)
    assert [pictures.fetch(url) for url in urls] == [picture(row, kind=kind) for row in range(COUNT)]


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
def test_of_a_tar_that_is_cut_the_whole_samples_are_read_and_the_cut_one_is_lost(tmp_path: Path, packed: bool) -> None:
    whole = tar(tmp_path / "set" / "0.tar", samples(jpg=picture, txt=text)).read_bytes()
    with tarfile.open(tmp_path / "set" / "0.tar") as archive:
        third = archive.getmember("002.jpg")
    name = "1.tar.gz" if packed else "1.tar"
    for end in (
        third.offset_data + 100,
        third.offset_data + third.size,
        -(-third.size // 512) * 512 + third.offset_data + 9,
    ):
        (tmp_path / "set" / name).write_bytes(_cut_gzip(whole, end) if packed else whole[:end])
        assert fates(tmp_path / "set", "webdataset") == [*CAPTIONS, "c 0", "c 1", "#truncated"]
        assert open_table(tmp_path / "set", "webdataset").oddities.set_aside == {"cut_tar": 1}


def _cut_gzip(content: bytes, end: int) -> bytes:
    """Return a gzip stream that breaks off behind `end` bytes of its content."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(content[:end]) + packer.flush(zlib.Z_SYNC_FLUSH)


def test_a_caption_that_is_no_text_or_endless_costs_its_sample(tmp_path: Path) -> None:
    odd = {0: b"caf\xe9", 1: bytes(2 << 20)}
    tar(tmp_path / "0.tar", samples(jpg=picture, txt=lambda row: odd.get(row, text(row))))
    assert fates(tmp_path, "webdataset") == ["#bad_text", "#bad_text", *CAPTIONS[2:]]


def test_where_metadata_or_a_caption_file_is_blank_the_next_place_counts(tmp_path: Path) -> None:
    lines = metadata("text", ["", " ", None, *CAPTIONS[3:]])
    files = {**beside("txt", ["c 0", " \n", "c 2", *["other"] * 3]), "1.caption": "c 1", "metadata.jsonl": lines}
    assert fates(folder(tmp_path / "folder", files), "pictures") == CAPTIONS
    named = {row: json.dumps({"caption": f"c {row}"}).encode() for row in range(3)}
    tar(
        tmp_path / "0.tar",
        samples(
            jpg=picture,
            txt=lambda row: b" " if row in named else text(row),
            json=lambda row: named.get(row, b"\xef\xbb\xbf{}"),
        ),
    )
    assert fates(tmp_path, "webdataset") == CAPTIONS


def test_metadata_of_other_systems_name_the_same_pictures(tmp_path: Path) -> None:
    path = folder(tmp_path, {"sub/e\u0301.jpg": picture(9)})
    names = ["./0.jpg", "1.jpg", "sub/../2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    rows = [*zip(names, CAPTIONS, strict=True), ("sub\\\u00e9.jpg", "c 6")]
    (path / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},{caption}\n" for name, caption in rows))
    assert fates(path, "pictures") == [*CAPTIONS, "c 6"]


def test_lines_of_metadata_without_a_picture_of_their_own_are_counted(tmp_path: Path) -> None:
    lines = (
        metadata("text", CAPTIONS) + b'\n{"file_name": "gone.jpg", "text": "a"}\n{"file_name": "0.jpg", "text": "b"}'
    )
    path = folder(tmp_path, {"metadata.jsonl": lines})
    assert fates(path, "pictures") == CAPTIONS
    assert open_table(path, "pictures").oddities.set_aside == {"no_such_picture": 1, "further_line": 1}


def test_metadata_with_a_stray_quote_lose_their_line_and_repeated_columns_are_refused(tmp_path: Path) -> None:
    rows = [f"{row}.jpg,c {row}" for row in range(COUNT)]
    rows[2] = '2.jpg,"c 2'
    path = folder(tmp_path, {"metadata.csv": "\n".join(["file_name,text", *rows]) + "\n"})
    assert fates(path, "pictures") == [*CAPTIONS[:2], "#no_caption", *CAPTIONS[3:]]
    (path / "metadata.csv").write_text("file_name,text,text\n0.jpg,a,b\n")
    with pytest.raises(StepError, match=r"metadata\.csv has several columns 'text'; rename all but one"):
        open_table(path, "pictures")


@pytest.mark.parametrize("content", ["c 0".encode("utf-16"), "c 0".encode("utf-16-le"), b"x" * (2 << 20)])
def test_a_caption_file_that_is_no_utf8_or_endless_costs_its_picture(tmp_path: Path, content: bytes) -> None:
    path = folder(tmp_path, {**beside("txt", CAPTIONS), "0.txt": content})
    assert fates(path, "pictures") == ["#bad_text", *CAPTIONS[1:]]


def test_members_of_a_tar_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = tar(tmp_path / "0.tar", samples(jpg=picture, txt=text))
    with tarfile.open(path, "a") as archive:
        for name, kind, content in (
            ("006.jpg", tarfile.LNKTYPE, b""),
            ("006.txt", tarfile.REGTYPE, b"c 6"),
            ("000.png", tarfile.REGTYPE, picture(0)),
            ("folder", tarfile.DIRTYPE, b""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "000.jpg" if kind == tarfile.LNKTYPE else "", len(content)
            archive.addfile(member, io.BytesIO(content))
    assert fates(tmp_path, "webdataset") == CAPTIONS
    assert open_table(tmp_path, "webdataset").oddities.set_aside == {"link": 1, "repeated_member": 1}
    path.write_bytes(path.read_bytes() + path.read_bytes())
    assert open_table(tmp_path, "webdataset").oddities.set_aside["second_tar"] == 1
