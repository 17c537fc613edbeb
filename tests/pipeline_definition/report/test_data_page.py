import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from PIL import ExifTags, Image
from typer.testing import CliRunner

from params.programs import DownloadSettings
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.artifacts.data_sample import DataFolder, DataPrefix, small_picture, spread
from pipeline_definition.artifacts.folder_sample import sample_of
from pipeline_definition.cli import app
from pipeline_definition.errors import OperatorError
from pipeline_definition.pages.html import to_html
from pipeline_definition.report.data_page import data_document
from pipeline_definition.report.page import render
from pipeline_definition.report.run import run_of

HOSTILE = "<script>alert(1)</script>"


def jpeg(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def page(folder: Path) -> str:
    return to_html(data_document(str(folder), sample_of(DataFolder(folder), str(folder))))


def write_shards(folder: Path, captions: list[str], dropped: dict[int, str]) -> None:
    """Write one shard as Download does: each sample's members, and the tables of samples and fates."""
    places, buffer = [], io.BytesIO()
    for row, caption in enumerate(captions):
        start = buffer.tell()
        for suffix, content in (("jpg", jpeg("red")), ("txt", caption.encode())):
            member = tarfile.TarInfo(f"{row:05d}.{suffix}")
            member.size = len(content)
            buffer.write(member.tobuf() + content + bytes(-len(content) % 512))
        places.append((start, buffer.tell()))
    (folder / "00000.tar").write_bytes(buffer.getvalue() + bytes(1024))
    samples: list[dict[str, Any]] = [
        {
            "key": f"{row:05d}",
            "caption": caption,
            "start": places[row][0],
            "stop": places[row][1],
            "original_width": 640,
            "original_height": 480,
            "sha256": "same" if row in dropped or row == 0 else str(row),
            "perceptual_hash": None,
            "dropped": dropped.get(row),
        }
        for row, caption in enumerate(captions)
    ]
    pq.write_table(pa.Table.from_pylist(samples), folder / "00000.samples.parquet")
    fates = [{"status": "failed", "error_message": "http_404", "url": f"http://x/{HOSTILE}", "caption": HOSTILE}]
    pq.write_table(pa.Table.from_pylist(fates), folder / "00000.parquet")
    ledger = {"rows": 10, "kept": 8, "failed": {"http_404": 1}, "filtered": {"duplicate_picture": 1}}
    (folder / "manifest.json").write_text(json.dumps({"ledger": ledger, "shards": [{"name": "00000.tar"}]}))


def test_the_page_of_shards_shows_pictures_causes_measures_and_copies_and_runs_no_caption(tmp_path: Path) -> None:
    write_shards(tmp_path, [HOSTILE, "a cat", "кошка", "a copy"], {3: "duplicate_picture"})
    html = page(tmp_path)
    assert "8 of 10 rows became samples: 80.0 %" in html
    assert html.count("data:image/jpeg;base64,") == 3 + 2
    assert "is left out as a copy" in html and "http 404" in html
    assert "256 to 512" in html and "cyrillic" in html and "1.05 to 1.34" in html
    assert HOSTILE not in html and "&lt;script&gt;alert(1)" in html


def test_the_page_of_shards_shows_the_written_caption_beside_the_original_one(tmp_path: Path) -> None:
    shards, written = tmp_path / "shards" / "cats", tmp_path / "captions" / "cats"
    shards.mkdir(parents=True)
    written.mkdir(parents=True)
    write_shards(shards, ["a cat", "another"], {})
    table = {"key": ["00001", "00000"], "caption": ["", f"A cat lies on a chair. {HOSTILE}"]}
    pq.write_table(pa.table(table), written / "00000.captions.parquet")
    out = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["data", "show", str(shards), "--out", str(out)]).exit_code == 0
    html = out.read_text()
    assert "<dt>original</dt><dd>a cat</dd><dt>written</dt><dd>A cat lies on a chair. &lt;script&gt;" in html
    assert html.count("<dt>written</dt>") == 1 and HOSTILE not in html


def test_the_page_of_a_folder_shows_its_pictures_with_their_captions(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "._a.jpg"):
        (tmp_path / name).write_bytes(jpeg("blue"))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": ["first", "second"]}\n{\n')
    (tmp_path / "b.txt").write_text("beside")
    html = page(tmp_path)
    assert "2 pictures. Download would leave out at least 1." in html and "first" in html and "beside" in html
    assert html.count("data:image/jpeg;base64,") == 2


def test_the_page_of_latents_has_their_counts(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"counts": {"train": 1200, "heldout": 34}, "resolution_px": 256})
    )
    assert "1,200 latents to train on, 34 held out." in page(tmp_path)


def test_what_is_damaged_is_left_out_and_what_is_nothing_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, ["a", "b"], {})
    (tmp_path / "00000.tar").write_bytes(b"\xff" * 9000)
    (tmp_path / "00000.parquet").write_bytes(b"no parquet")
    assert "data:image/jpeg" not in page(tmp_path)
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(OperatorError, match="not a manifest"):
        page(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OperatorError, match="neither a manifest"):
        page(tmp_path / "empty")


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.jpg").symlink_to(tmp_path / "secret")
    files = DataFolder(tmp_path / "set")
    assert files.names() == []
    assert files.read("../secret") is None and files.read("link.jpg") is None


@pytest.mark.parametrize("content", [b"", b"<svg onload=alert(1)>", jpeg("red")[:100], b"\xff\xd8\xff" + bytes(99)])
def test_what_is_no_picture_has_no_thumbnail(content: bytes) -> None:
    assert small_picture(content) is None


def test_a_sample_is_spread_from_first_to_last() -> None:
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert spread([1, 2], 24) == [1, 2]


def test_the_command_writes_the_page_and_names_what_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg("blue"))
    runner = CliRunner()
    done = runner.invoke(app, ["data", "show", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0 and (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    refused = runner.invoke(app, ["data", "show", str(tmp_path / "nothing")])
    assert refused.exit_code == 2


def test_the_runs_page_shows_some_of_the_stored_pictures(tmp_path: Path) -> None:
    (tmp_path / "went_in").mkdir()
    (tmp_path / "went_in" / "00.jpg").write_bytes(jpeg("green"))
    (tmp_path / "went_in.json").write_text(json.dumps({"captions": {"00.jpg": HOSTILE}, "written": {"00.jpg": "long"}}))
    html = render(run_of(Artifacts.load(tmp_path), {}))
    assert (
        "<dt>written</dt><dd>long</dd>" in html
        and 'id="went-in"' in html
        and "&lt;script&gt;alert(1)" in html
        and HOSTILE not in html
    )
    (tmp_path / "went_in" / "00.jpg").unlink()
    assert 'id="went-in"' not in render(run_of(Artifacts.load(tmp_path), {}))


class _Objects:
    """Answers as boto3's S3 client does, from a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get_object(self, **asked: str) -> dict[str, Any]:
        path = self._folder / asked["Key"].removeprefix("shards/set/")
        if not path.is_file():
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        content = path.read_bytes()
        span = asked.get("Range", f"bytes=0-{len(content)}").removeprefix("bytes=")
        start, stop = map(int, span.split("-"))
        return {"Body": io.BytesIO(content[start : stop + 1])}


def test_a_prefix_of_s3_gives_what_the_folder_gives(tmp_path: Path) -> None:
    write_shards(tmp_path, ["a", "b", "c"], {})
    files = DataPrefix(_Objects(tmp_path), "s3://bucket/shards/set/")
    assert sample_of(files, "s3://bucket/shards/set") == sample_of(DataFolder(tmp_path), "")


def test_the_page_of_a_folder_says_what_download_would_leave_out_and_why(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (640, 480), "red").save(buffer, "JPEG", exif=exif)
    contents = {
        "fine": buffer.getvalue(),
        "copy": buffer.getvalue(),
        "small": jpeg("red", (100, 600)),
        "long": jpeg("blue", (2000, 300)),
        "cut": jpeg("green", (600, 600))[:400],
        "bare": jpeg("green", (600, 600)),
    }
    for place, (name, content) in enumerate(contents.items()):
        (tmp_path / f"{place}.jpg").write_bytes(content)
        (tmp_path / f"{place}.txt").write_text("" if name == "bare" else name)
    rows = [{"file_name": f"{place}.jpg", "pwatermark": place / 10} for place in range(6)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = DownloadSettings(image_size_px=256)
    sample = sample_of(DataFolder(tmp_path), str(tmp_path), settings)
    assert sample.left_out == {
        "duplicate_picture": 1,
        "too_small": 1,
        "aspect_ratio": 1,
        "corrupt": 1,
        "no_caption": 1,
    }
    assert sample.sides[0] == (480, 640), "as it is seen, not as it is stored"
    assert sample.scores == {"pwatermark": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)}
    html = to_html(data_document(str(tmp_path), sample))
    assert "6 pictures. Download would leave out at least 5." in html and "shorter side needed, px" in html
    for words in ("Would be left out", "too small", "Shorter side", "Longer side to shorter side", "pwatermark"):
        assert words in html
    assert sample_of(DataFolder(tmp_path), "").left_out == {"duplicate_picture": 1, "corrupt": 1, "no_caption": 1}


def test_scores_that_shards_hold_are_charted(tmp_path: Path) -> None:
    write_shards(tmp_path, ["a", "b"], {})
    scored = [
        {"status": "success", "error_message": None, "aesthetic": score} for score in (4.5, None, float("nan"), 6)
    ]
    pq.write_table(pa.Table.from_pylist(scored), tmp_path / "00000.parquet")
    assert sample_of(DataFolder(tmp_path), "").scores == {"aesthetic": (4.5, 6.0)}
    assert "aesthetic" in page(tmp_path)


def test_stored_pictures_are_shown_as_they_lie() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (64, 32), "red").save(buffer, "JPEG", exif=exif)
    stored = small_picture(buffer.getvalue())
    assert stored and Image.open(io.BytesIO(stored.jpeg)).size == (64, 32)
