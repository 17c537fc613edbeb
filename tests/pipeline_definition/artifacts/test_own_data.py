import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto import mock_aws
from PIL import Image

from params.programs import DownloadSettings
from pipeline_definition.artifacts.own_data import OwnData, own_data
from pipeline_definition.errors import UsageError

SETTINGS = DownloadSettings(image_size_px=64)


def jpeg(number: int, side_px: int = 80) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side_px, side_px), (number, 2 * number % 256, 7)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "My photos"
    photos.mkdir()
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes(jpeg(number))
        (photos / f"{number}.txt").write_text(f"photo {number}\n")
    return photos


def looked_at(place: Path | str, client: Any = None) -> OwnData:
    return own_data(str(place), SETTINGS, client)


def test_a_folder_is_told_with_what_is_left_out_and_why(folder: Path) -> None:
    (folder / "6.jpg").write_bytes(jpeg(0))
    (folder / "6.txt").write_text("the same picture")
    (folder / "7.jpg").write_bytes(jpeg(7, side_px=40))
    (folder / "7.jpg.txt").write_text("a small one")
    (folder / "8.png").write_bytes(b"no picture")
    (folder / "8.caption").write_text("a broken one")
    (folder / "film.mov").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")
    own = looked_at(folder)
    assert (own.source, own.sample.rows, own.usable) == ("pictures", 9, 6)
    assert own.sample.left_out == {"duplicate_picture": 1, "too_small": 1, "corrupt": 1}
    assert own.passed_over == {".mov": 1, ".DS_Store": 1}
    assert set(own.files) == set(own.digests) and "film.mov" not in own.files and len(own.files) == 18


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_captions_of_metadata_count(folder: Path, kind: str) -> None:
    rows = {"file_name": ["0.jpg", "1.jpg"], "text": [" one &amp; two ", ""]}
    if kind == "jsonl":
        lines = '{"file_name": "0.jpg", "text": " one &amp; two "}\n{"file_name": "1.jpg", "text": ""}\nno object\n'
        (folder / "metadata.jsonl").write_text(lines)
    elif kind == "csv":
        (folder / "metadata.csv").write_text("file_name,text\n0.jpg, one &amp; two \n1.jpg,\n")
    else:
        pq.write_table(pa.table(rows), folder / "metadata.parquet")
    assert looked_at(folder).sample.kept[:3] == ("one & two", "photo 1", "photo 2")


def test_a_name_says_the_folder_and_changes_with_its_content(folder: Path) -> None:
    name = looked_at(folder).name
    assert name.startswith("My-photos-") and looked_at(folder).name == name
    (folder / "0.txt").write_text("another caption")
    assert looked_at(folder).name != name


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_is_told_with_its_columns(tmp_path: Path, kind: str) -> None:
    urls = ["http://x/1.jpg", "http://x/1.jpg", "file:///etc/passwd", "", "https://x/2.jpg"]
    captions = ["one", "one more", "no", "no", ""]
    path = tmp_path / f"mine.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"URL": urls, "TEXT": captions}), path)
    elif kind == "jsonl":
        lines = (f'{{"URL": "{url}", "TEXT": "{text}"}}\n' for url, text in zip(urls, captions, strict=True))
        path.write_text("".join(lines))
    else:
        mark = "," if kind == "csv" else "\t"
        path.write_text("".join(f"{a}{mark}{b}\n" for a, b in zip(["URL", *urls], ["TEXT", *captions], strict=True)))
    own = looked_at(path)
    assert (own.source, dict(own.columns)) == ("urls", {"url_column": "URL", "caption_column": "TEXT"})
    assert own.sample.left_out == {"duplicate": 1, "refused_scheme": 1, "no_url": 1, "no_caption": 1}
    assert (own.sample.rows, own.sample.kept, list(own.files)) == (5, ("one",), [f"mine.{kind}"])


def test_a_table_of_pictures_is_no_table_of_addresses(tmp_path: Path) -> None:
    images = [{"bytes": jpeg(number), "path": None} for number in range(3)]
    pq.write_table(pa.table({"image": images, "text": ["a", "b", "c"]}), tmp_path / "train.parquet")
    own = looked_at(tmp_path)
    assert (own.source, dict(own.columns), own.usable) == ("pictures", {"caption_column": "text"}, 3)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "neither pictures"),
        ({"film.mov": ""}, r"it has \.mov"),
        ({"t.csv": "address,words\nhttp://x/1.jpg,a\n"}, "no column 'caption'; it has address, words"),
        ({"t.csv": ""}, "no row of .* can be read"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"--data: .*{problem}"):
        looked_at(tmp_path)


def test_a_place_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*nowhere; name a folder, a table"):
        looked_at(tmp_path / "nowhere")


@pytest.fixture
def s3() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        yield client


@pytest.mark.parametrize("address", ["s3://bucket/mine", "s3://bucket/mine/", "s3://bucket/mine/t.csv"])
def test_data_in_s3_stay_where_they_are(s3: Any, address: str) -> None:
    s3.put_object(Bucket="bucket", Key="mine/t.csv", Body=b"url,caption\nhttp://x/1.jpg,one\n")
    s3.put_object(Bucket="bucket", Key="mine-other/0.jpg", Body=b"")
    own = looked_at(address, s3)
    assert (own.source, own.sample.kept, own.files, own.uri_in("other")) == ("urls", ("one",), {}, address)


def test_an_empty_address_says_where_it_was_looked_for(s3: Any) -> None:
    with pytest.raises(UsageError, match=r"nothing lies under s3://bucket/x .* aws s3 sync s3://bucket/x \./data"):
        looked_at("s3://bucket/x", s3)
