"""Tables that an earlier release read have the digest that it gave them: it is part of what shards are made from."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from params.programs import DownloadArguments
from steps.data.collecting.collection import Collection
from tests.steps.data.fates import open_table
from tests.steps.data.tables.test_pictures_as_found import tar

FOLDER_DIGEST = "22f1363689a03d401de9c7fd0c49aa2855f16dbcc82adc7f9d9a18e74cd84c9c"
SHARDS_DIGEST = "eb02107e2e0700765b435cef083ac1733e8e1a7ecabd88b0c8b952e0fa3d8f6e"


def test_parquet_has_the_digest_of_its_footers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"url": ["http://a/1", "http://a/2"], "caption": ["a", "b"], "punsafe": [0.1, None]}), path)
    footer = pq.ParquetFile(path).metadata
    parts = f"t.parquet\n2\n{footer.serialized_size}\n" + repr(footer.to_dict())
    assert open_table(path).digest == hashlib.sha256(parts.encode()).hexdigest()


def test_csv_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('url,caption,score\nhttp://a/1,"one, 1",0.5\nhttp://a/2,two,\n')
    content = (tmp_path / "t.csv").read_bytes()
    assert open_table(tmp_path / "t.csv").digest == hashlib.sha256(b"t.csv\n" + content).hexdigest()


def test_pictures_have_the_digest_of_their_names_sizes_and_captions(tmp_path: Path) -> None:
    for name, content in (("a.jpg", b"12345"), ("b.PNG", b"123"), ("sub/c.webp", b"1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    line = '{"file_name": "a.jpg", "text": " first ", "caption": "no", "similarity": 0.3, "prompt": "p", "ok": true}\n'
    (tmp_path / "metadata.jsonl").write_text(line)
    (tmp_path / "b.txt").write_text("größe\nline\n")
    assert open_table(tmp_path, "pictures").digest == FOLDER_DIGEST


def test_shards_have_the_digest_of_their_samples(tmp_path: Path) -> None:
    members = {
        "k1.jpg": b"xx",
        "k1.txt": b" one ",
        "k1.json": b'{"caption":"no","width":96,"prompt":"p","list":["a"]}',
        "x/k2.json": b'{"caption":"two","exif":{}}',
        "x/k2.png": b"y",
        "k3.jpg": b"z",
        "k3.json": b'{"text": "three"}',
    }
    tar(tmp_path / "0.tar", members)
    assert open_table(tmp_path, "webdataset").digest == SHARDS_DIGEST


def test_all_captions_make_other_shards_and_which_rows_have_one_does_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text("url,caption\nhttp://a/1,one\n")
    arguments = DownloadArguments(url_table=str(tmp_path / "t.csv"), shards_uri=str(tmp_path / "shards"))
    plan = Collection(arguments).artifact.parts_digest
    for change, is_same in (
        ({"captions": "all"}, False),
        ({"caption_lines": True}, True),
        ({"keep_uncaptioned": True}, True),
    ):
        assert (Collection(arguments.model_copy(update=change)).artifact.parts_digest == plan) is is_same
