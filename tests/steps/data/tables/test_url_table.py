import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.tables import row_files
from steps.errors import StepError
from tests.steps.data.fates import open_table


def write(path: Path, urls: list[str | None], **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = [f"caption of {url}" for url in urls]
    pq.write_table(pa.table({"url": pa.array(urls, pa.string()), "caption": captions, **columns}), path)
    return path


def test_slices_cross_files_and_keep_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", ["d", "e"])
    write(tmp_path / "a.parquet", ["a", "b", "c"])
    (tmp_path / "_SUCCESS").write_text("")
    table = open_table(tmp_path)
    slices = list(table.shards(2))
    assert table.rows == 5
    assert [(part.index, part.first_row, part.urls) for part in slices] == [
        (0, 0, ["a", "b"]),
        (1, 2, ["c", "d"]),
        (2, 4, ["e"]),
    ]
    assert slices[1].captions == ["caption of c", "caption of d"]


def test_columns_may_have_any_name_and_place(tmp_path: Path) -> None:
    pq.write_table(pa.table({"TEXT": ["t"], "punsafe": [0.1], "URL": ["u"]}), tmp_path / "laion.parquet")
    part = next(open_table(tmp_path / "laion.parquet", url_column="URL", caption_column="TEXT").shards(10))
    assert (part.urls, part.captions) == (["u"], ["t"])


def test_only_the_first_rows_where_asked_for(tmp_path: Path) -> None:
    table = open_table(write(tmp_path / "t.parquet", list("abcdef")), max_rows=4)
    assert table.rows == 4
    assert [part.urls for part in table.shards(3)] == [["a", "b", "c"], ["d"]]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.integers(1, 7), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_slices_hold_every_row_once_whatever_the_batches(
    tmp_path_factory: pytest.TempPathFactory, urls: list[str], batch: int, size: int
) -> None:
    path = write(tmp_path_factory.mktemp("table") / "t.parquet", list(urls))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "BATCH_ROWS", batch)
        table = open_table(path)
        assert [url for part in table.shards(size) for url in part.urls] == urls


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.tsv.gz"])
def test_text_tables_are_read_by_their_named_columns(tmp_path: Path, name: str) -> None:
    delimiter = "," if "csv" in name else "\t"
    lines = [["TEXT", "score", "URL"], ["a cat, or two", "0.5", "http://x/1"], ['"two', "", 'lines"\t'.strip()]]
    content = io.StringIO()
    csv.writer(content, delimiter=delimiter).writerows(lines)
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wt", encoding="utf-8", newline="") as file:
        file.write(content.getvalue())
    table = open_table(tmp_path / name, url_column="URL", caption_column="TEXT", tsv_quotes=True)
    assert (table.rows, table.names) == (2, ("TEXT", "score", "URL"))
    assert next(table.shards(9)).captions == ["a cat, or two", '"two']
    assert [batch.column(0).to_pylist() for batch in table.batches(["score"])] == [["0.5", ""]]


def test_text_tables_of_several_files_are_one_table_with_one_digest(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('url,caption\nhttp://x/1,"one\ntwo"\n')
    (tmp_path / "b.csv").write_text("caption,url\nthree,http://x/2\n")
    table = open_table(tmp_path)
    assert [part.captions for part in table.shards(1)] == [["one\ntwo"], ["three"]]
    before = table.digest
    (tmp_path / "b.csv").write_text("caption,url\nfour,http://x/2\n")
    assert open_table(tmp_path).digest != before


def test_a_folder_of_several_kinds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,caption\nhttp://x/1,one\n")
    write(tmp_path / "b.parquet", ["a"])
    with pytest.raises(StepError, match=r"holds \.csv and \.parquet; keep one kind"):
        open_table(tmp_path)
    (tmp_path / "c.tsv").write_text("url\tTEXT\n")
    with pytest.raises(StepError, match=r"no column 'caption'; it has url, TEXT"):
        open_table(tmp_path / "c.tsv")


def test_the_digest_tells_tables_apart(tmp_path: Path) -> None:
    first = open_table(write(tmp_path / "1" / "t.parquet", ["a", "b"])).digest
    again = open_table(write(tmp_path / "2" / "t.parquet", ["a", "b"])).digest
    other = open_table(write(tmp_path / "3" / "t.parquet", ["a", "c"])).digest
    assert first == again != other


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"no parquet, CSV or TSV file at .*nothing"):
        open_table(tmp_path / "nothing")
    with pytest.raises(StepError, match=r"no parquet, CSV or TSV file at .* set download\.source"):
        open_table(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"no column 'URL'; it has url, caption"):
        open_table(write(tmp_path / "t.parquet", ["a"]), url_column="URL")


def test_other_files_and_empty_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("url,caption\n")
    with pytest.raises(StepError, match="is not parquet"):
        open_table(tmp_path / "t.parquet")
    with pytest.raises(StepError, match="has no rows"):
        open_table(write(tmp_path / "e.parquet", []))
