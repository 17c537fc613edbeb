"""Tables as people have them: each kind of file, column and odd value. One odd value costs its row and no other."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.errors import StepError
from tests.steps.data.fates import fates, open_table

ROWS = 12
URLS = [f"http://x/{row}.jpg" for row in range(ROWS)]
CAPTIONS = [f"a picture of thing {row}" for row in range(ROWS)]


def parquet(path: Path, caption: Any, url: Any = None, **columns: Any) -> Path:
    pq.write_table(pa.table({"url": pa.array(URLS) if url is None else url, "caption": caption, **columns}), path)
    return path


def lines(path: Path, rows: list[str], encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join(rows).encode(encoding) + b"\n")
    return path


def test_a_tsv_without_a_line_of_names_is_read_by_the_names_that_are_given(tmp_path: Path) -> None:
    path = lines(tmp_path / "cc12m.tsv", [f"{url}\t{text}" for url, text in zip(URLS, CAPTIONS, strict=True)])
    assert fates(path, column_names=("url", "caption")) == CAPTIONS
    with pytest.raises(StepError, match=r"no column 'url'; .* first line is data: .* download\.column_names"):
        open_table(path)
    with pytest.raises(StepError, match=r"column_names: they are for CSV and TSV files .* is \.parquet"):
        open_table(parquet(tmp_path / "t.parquet", pa.array(CAPTIONS)), column_names=("url", "caption"))


JSON_ROWS = [{"url": url, "caption": text, "other": {"deep": [1]}} for url, text in zip(URLS, CAPTIONS, strict=True)]
JSON_LINES = "\n".join(json.dumps(row) for row in JSON_ROWS)
COLUMNS = {"url": URLS, "caption": CAPTIONS}
PANDAS = {name: dict(zip(map(str, range(ROWS)), values, strict=True)) for name, values in COLUMNS.items()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", JSON_LINES),
        ("t.ndjson", "\ufeff" + JSON_LINES + "\n\n"),
        ("t.jsonl", JSON_LINES.replace("\n", "\r\n")),
        ("t.json", JSON_LINES),
        ("t.json", json.dumps(JSON_ROWS, indent=1)),
        ("t.json", json.dumps({**COLUMNS, "info": "of a table"})),
        ("t.json", json.dumps(PANDAS)),
    ],
)
@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress])
def test_json_is_read_as_lines_rows_or_columns(
    tmp_path: Path, name: str, content: str, pack: Callable[[bytes], bytes] | None
) -> None:
    path = tmp_path / (name + {None: "", gzip.compress: ".gz", bz2.compress: ".bz2"}[pack])
    path.write_bytes(pack(content.encode()) if pack else content.encode())
    assert fates(path) == CAPTIONS


def test_a_list_of_addresses_has_no_captions_and_says_so(tmp_path: Path) -> None:
    path = lines(tmp_path / "urls.txt", ["", *URLS, ""])
    with pytest.raises(StepError, match=r"addresses and no captions; set download\.keep_uncaptioned"):
        open_table(path)
    assert fates(path, keep_uncaptioned=True) == [None] * ROWS
    assert [url for part in open_table(path, keep_uncaptioned=True).shards(5) for url in part.urls] == URLS


def test_quotes_in_a_tsv_are_characters(tmp_path: Path) -> None:
    captions = ["plain", '"the best thing ever', 'a 12" record', '"quoted"', "it's"]
    rows = [f"{text}\t{url}" for text, url in zip(captions, URLS, strict=False)]
    path = lines(tmp_path / "t.tsv", ["caption\turl", *rows])
    assert fates(path) == captions
    quoted = lines(tmp_path / "pandas.tsv", ["caption\turl", f'"a 12"" record\nand more"\t{URLS[0]}'])
    assert fates(quoted, tsv_quotes=True) == ['a 12" record\nand more']


TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_every_type_of_text_is_text(tmp_path: Path, kind: Any) -> None:
    path = parquet(tmp_path / "t.parquet", pa.array(CAPTIONS).cast(kind), pa.array(URLS).cast(kind))
    assert fates(path) == CAPTIONS


LISTS = [pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.binary()), pa.list_(pa.string(), 3)]


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_of_a_list_of_captions_the_first_one_that_is_drawn_or_all_count(tmp_path: Path, kind: Any) -> None:
    rows = [[" ", f"a {row}", f"b {row}"] for row in range(ROWS)]
    path = parquet(tmp_path / "t.parquet", pa.array(rows, kind))
    assert fates(path) == [f"a {row}" for row in range(ROWS)]
    drawn = fates(path, captions="random")
    assert drawn == fates(path, captions="random") != fates(path, captions="random", captions_seed=1)
    assert {text[0] for text in drawn} == {"a", "b"}
    assert fates(path, captions="all") == [[f"a {row}", f"b {row}"] for row in range(ROWS)]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("caption", pa.array(range(ROWS))),
        ("caption", pa.array([0.5] * ROWS)),
        ("caption", pa.array([[row] for row in range(ROWS)])),
        ("caption", pa.array([{"text": text} for text in CAPTIONS])),
        ("caption", pa.array([True] * ROWS)),
        ("url", pa.array([[url] for url in URLS])),
        ("url", pa.array(range(ROWS))),
    ],
)
def test_a_column_that_is_no_text_is_refused_in_a_line_that_names_it(tmp_path: Path, name: str, values: Any) -> None:
    columns = {"url": pa.array(URLS), "caption": pa.array(CAPTIONS), name: values}
    path = parquet(tmp_path / "t.parquet", columns["caption"], columns["url"])
    with pytest.raises(StepError) as raised:
        open_table(path)
    line = str(raised.value)
    assert f"column {name!r} holds {str(values.type).split('<')[0]}" in line
    assert f"download.{name}_column" in line
    assert "\n" not in line


def test_numbers_in_json_and_csv_are_captions_as_they_are_written(tmp_path: Path) -> None:
    assert fates(lines(tmp_path / "t.csv", ["url,caption", "http://x/1,7", "http://x/2,0.50"])) == ["7", "0.50"]
    rows = ['{"url": "http://x/1", "caption": 7}', '{"url": "http://x/2", "caption": NaN}', JSON_LINES.split("\n")[0]]
    assert fates(lines(tmp_path / "t.jsonl", rows)) == ["7", "#no_caption", CAPTIONS[0]]
    assert fates(lines(tmp_path / "n.jsonl", rows[:2])) == ["7", "#no_caption"]


def bad_utf8(values: list[str], kind: Any) -> Any:
    """Return strings of which the last is the byte e9, which is no UTF-8."""
    good = pa.array([value.encode() for value in values[:-1]] + [b"caf\xe9"], pa.binary())
    return pa.Array.from_buffers(kind, len(good), good.buffers())


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
@pytest.mark.parametrize("name", ["url", "caption"])
def test_bytes_that_are_no_utf8_cost_their_row(tmp_path: Path, kind: Any, name: str) -> None:
    columns = {"url": pa.array(URLS), "caption": pa.array(CAPTIONS)}
    columns[name] = bad_utf8(columns[name].to_pylist(), kind)
    assert fates(parquet(tmp_path / "t.parquet", columns["caption"], columns["url"])) == [*CAPTIONS[:-1], "#bad_text"]


ODD_LINES: list[tuple[str, bytes, str]] = [
    ("csv", b"http://x/odd.jpg,caf\xe9", "#bad_text"),
    ("csv", b"http://x/odd.jpg,a \0 zero", "#bad_text"),
    ("csv", b'http://x/odd.jpg,"a quote that does not end', "#bad_row"),
    ("csv", b'"http://x/odd.jpg,a quote that does not end', "#bad_row"),
    ("csv", b'http://x/odd.jpg,a 12" record', 'a 12" record'),
    ("csv", b'http://x/odd.jpg,"one\ntwo, ""three""\nhttp://x/4"', 'one\ntwo, "three"\nhttp://x/4'),
    ("csv", b"http://x/odd.jpg,one, two, three", "#bad_row"),
    ("csv", b"http://x/odd.jpg", "#bad_row"),
    ("csv", b"http://x/odd.jpg,", "#no_caption"),
    ("csv", b",a caption", "#no_url"),
    ("tsv", b"http://x/odd.jpg\tcaf\xe9", "#bad_text"),
    ("tsv", b"http://x/odd.jpg\tone\ttwo", "#bad_row"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": "caf\xe9"}', "#bad_text"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": "half \\ud83d"}', "#bad_text"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": "a \\u0000 zero"}', "#bad_text"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": {"en": "a"}}', "#bad_text"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": ["a", {}]}', "#bad_text"),
    ("jsonl", b'{"url": ["http://x/odd.jpg", "http://x/2"], "caption": "a"}', "#bad_text"),
    ("jsonl", b'{"url": ["http://x/odd.jpg"], "caption": "a"}', "a"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": 1e999}', "#bad_text"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": null}', "#no_caption"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": []}', "#no_caption"),
    ("jsonl", b'{"url": "http://x/odd.jpg"}', "#no_caption"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": "cut', "#bad_row"),
    ("jsonl", b'["http://x/odd.jpg", "a caption"]', "#bad_row"),
    ("jsonl", b"[" * 100_000, "#bad_row"),
    ("jsonl", b"\0\0\0", "#bad_row"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": "a \xe2\x80\xa8 b"}', "a \u2028 b"),
    ("jsonl", b'{"url": "http://x/odd.jpg", "caption": "a", "id": 1180591620717411303424}', "a"),
]


@pytest.mark.parametrize(("suffix", "odd", "fate"), ODD_LINES)
def test_an_odd_line_costs_itself(tmp_path: Path, suffix: str, odd: bytes, fate: str) -> None:
    if suffix == "jsonl":
        rows = [json.dumps(row).encode() for row in JSON_ROWS]
    else:
        comma = "," if suffix == "csv" else "\t"
        rows = [f"{url}{comma}{text}".encode() for url, text in [("url", "caption"), *zip(URLS, CAPTIONS, strict=True)]]
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(b"\n".join([*rows[:4], odd, *rows[4:]]) + b"\n")
    # Lines that are no rows of a CSV are counted behind its others.
    assert sorted(map(str, fates(path))) == sorted([*CAPTIONS, fate])


def test_a_line_that_is_too_long_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steps.data.tables import json_files

    monkeypatch.setattr(json_files, "MAX_LINE_BYTES", 100)
    long = json.dumps({"url": "http://x/long", "caption": "x" * 500})
    path = lines(tmp_path / "t.jsonl", [*JSON_LINES.replace(', "other": {"deep": [1]}', "").split("\n"), long])
    assert fates(path) == [*CAPTIONS, "#bad_row"]


@given(st.lists(st.binary(max_size=60).filter(lambda line: b"\n" not in line), max_size=12))
@settings(max_examples=60, deadline=None)
def test_whatever_a_line_of_json_holds_the_good_ones_are_kept(
    tmp_path_factory: pytest.TempPathFactory, odd: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("table") / "t.jsonl"
    path.write_bytes(b"\n".join([*odd, *(json.dumps(row).encode() for row in JSON_ROWS)]))
    assert fates(path)[-ROWS:] == CAPTIONS


@pytest.mark.parametrize("first", [0, 0.5, None, "CC-BY"])
def test_columns_that_nobody_asked_for_are_not_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Any
) -> None:
    from steps.data.tables import delimited_files

    monkeypatch.setattr(delimited_files, "CSV_BLOCK_BYTES", 1 << 10)
    rows = [
        f"{url},{text},{'' if row < 6 else first}" for row, (url, text) in enumerate(zip(URLS, CAPTIONS, strict=True))
    ]
    path = lines(tmp_path / "t.csv", ["url,caption,score", *rows])
    assert fates(path) == CAPTIONS
    assert fates(parquet(tmp_path / "t.parquet", pa.array(CAPTIONS), blob=bad_utf8(CAPTIONS, pa.string()))) == CAPTIONS


@pytest.mark.parametrize(
    ("caption", "stored"),
    [
        ("  trimmed \n", "trimmed"),
        ("Tom &amp; Jerry &quot;here&#39;s&#x27;", "Tom & Jerry \"here's'"),
        ("at &T and ?a=1&copy=2", "at &T and ?a=1&copy=2"),
        ("\ufeffa mark of byte order", "a mark of byte order"),
        ("&nbsp;", "#no_caption"),
        (" \t\u3000", "#no_caption"),
        ("\u200b\u00a0", "#no_caption"),
        ("&nbsp;&#8203;", "#no_caption"),
        ("\ufeff\u200e\u2060", "#no_caption"),
        ("\u3164\u2800\u0301", "#no_caption"),
        ("&#0;&#xD800;\ufffd", "#no_caption"),
        ("", "#no_caption"),
        ("&lt;&gt;&amp;", "#short_caption"),
        ("größe", "größe"),
    ],
)
def test_captions_are_trimmed_and_entities_undone_before_their_length_is_judged(
    tmp_path: Path, caption: str, stored: str
) -> None:
    path = parquet(tmp_path / "t.parquet", pa.array([caption] * ROWS))
    assert fates(path, min_caption_characters=4) == [stored] * ROWS


def test_a_repeated_picture_has_all_its_captions_where_that_is_asked_for(tmp_path: Path) -> None:
    urls = [f"http://x/{row % 4}.jpg" for row in range(ROWS)]
    path = parquet(tmp_path / "t.parquet", pa.array([*CAPTIONS[:-1], CAPTIONS[3]]), pa.array(urls))
    first = [*CAPTIONS[:4], *["#duplicate"] * 8]
    assert fates(path) == first
    several = [[CAPTIONS[row], CAPTIONS[row + 4], CAPTIONS[row + 8]] for row in range(3)]
    assert fates(path, captions="all") == [*several, [CAPTIONS[3], CAPTIONS[7]], *["#duplicate"] * 8]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "url,caption\nhttp://x/ü,b\n".encode("utf-16"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("t.tsv", "url\tcaption\nhttp://x/ü\tb\n".encode("utf-16-le"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("t.jsonl", JSON_LINES.encode("utf-16"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("t.json", JSON_LINES.encode("utf-32"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("t.txt", "http://x/1\n".encode("utf-16"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("t.csv", b"url;caption\nhttp://x;b\n", "has url;caption; its fields are separated by ';': write it with ','"),
        ("t.csv", b"url,caption,caption\nhttp://x,b,c\n", "has 2 columns 'caption'; rename all but one"),
        ("t.csv", b"url,url,caption\nhttp://x,http://y,c\n", "has 2 columns 'url'; rename all but one"),
        ("t.jsonl", b"", "has no column 'url'; it has none"),
        ("t.csv.gz", gzip.compress(b"url,caption\n" + b"http://x,b\n" * 9999)[:-50], r"t\.csv\.gz"),
        ("t.jsonl.gz", gzip.compress(JSON_LINES.encode())[:-50], r"t\.jsonl\.gz"),
        ("t.csv.gz", b"url,caption\nhttp://x,b\n", r"t\.csv\.gz cannot be unpacked"),
        ("t.jsonl", b"no json\n", "line 1: no JSON object"),
        ("t.json", b"[1, 2", "is no JSON"),
        ("t.json", b'{"images": [], "annotations": []}', "no column 'url'; it has images, annotations"),
        ("t.json", b'{"url": ["a"], "caption": []}', "different lengths: url 1, caption 0"),
        ("t.json", b"[" * 100_000, "nested too deeply"),
        ("t.xlsx", b"PK\x03\x04", "does not tell which kind of table it is; these are read: parquet, csv"),
        ("t.parquet", b"PAR1", "is not parquet"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line_that_names_the_file(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StepError, match=message) as raised:
        fates(tmp_path / name)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_of_tables_passes_over_what_computers_leave_there_and_over_notes(tmp_path: Path) -> None:
    parquet(tmp_path / "0.parquet", pa.array(CAPTIONS))
    for name in ("._0.parquet", "__MACOSX/._0.parquet", ".ipynb_checkpoints/0-checkpoint.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "README.txt").write_text("about the table")
    (tmp_path / "stats.json").write_text("{}")
    assert fates(tmp_path) == CAPTIONS


def test_a_table_of_pictures_is_told_how_to_be_read(tmp_path: Path) -> None:
    pictures = pa.array([{"bytes": b"x", "path": "a.jpg"}] * ROWS)
    pq.write_table(pa.table({"image": pictures, "text": CAPTIONS}), tmp_path / "t.parquet")
    with pytest.raises(StepError, match=r"no column 'url'; it has image, text; .* set download\.source to pictures"):
        open_table(tmp_path)
