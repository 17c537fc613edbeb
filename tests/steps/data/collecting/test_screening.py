import html
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from params.programs import DownloadSettings
from steps.data.collecting import parts
from steps.data.collecting.screening import ROW, screen
from steps.data.tables import row_files
from steps.data.tables.url_table import UrlTable
from steps.errors import StepError
from tests.steps.data.fates import open_table


def table_of(folder: Path, **columns: object) -> UrlTable:
    count = len(next(iter(columns.values())))  # type: ignore[call-overload]
    values = {"url": [f"http://x/{row}" for row in range(count)], "caption": ["a caption"] * count, **columns}
    pq.write_table(pa.table(values), folder / "t.parquet")
    return open_table(folder / "t.parquet")


def fates(table: UrlTable, **values: object) -> dict[int, str]:
    screening = screen(table, DownloadSettings.model_validate(values))
    numbers = enumerate(screening.fates[:].tolist())
    return {row: str(screening.causes[number - 1]) for row, number in numbers if number}


SCORES = [0.2, None, 0.8, float("nan"), 0.5]


@pytest.mark.parametrize(
    ("column", "setting", "cause", "dropped"),
    [
        ("AESTHETIC_SCORE", {"min_aesthetic_score": 0.5}, "aesthetic", {0, 1, 3}),
        ("pwatermark", {"max_watermark": 0.5}, "watermark", {1, 2, 3}),
        ("punsafe", {"max_unsafe": 0.5}, "unsafe", {1, 2, 3}),
        ("similarity", {"min_similarity": 0.5}, "similarity", {0, 1, 3}),
        ("mine", {"min_similarity": 0.5, "score_columns": ("similarity=mine",)}, "similarity", {0, 1, 3}),
    ],
)
def test_scores_beyond_their_threshold_or_missing_are_left_out_under_their_filter(
    tmp_path: Path, column: str, setting: dict[str, object], cause: str, dropped: set[int]
) -> None:
    table = table_of(tmp_path, **{column: SCORES})
    assert fates(table, **setting) == dict.fromkeys(dropped, cause)
    assert fates(table) == {}


def test_scores_that_are_texts_count_as_numbers(tmp_path: Path) -> None:
    table = table_of(tmp_path, similarity=["0.5", " 0.25", "", "unknown", "1e0"])
    assert set(fates(table, min_similarity=0.3)) == {1, 2, 3}


@pytest.mark.parametrize(
    ("columns", "setting", "kept"),
    [
        ({"aesthetic_score_laion_v2": [4.0, 5.0]}, {"min_aesthetic_score": 5.0}, {1}),
        ({"clip_similarity_vitb32": [0.9, 0.9], "clip_similarity_vitl14": [0.3, 0.2]}, {"min_similarity": 0.3}, {0}),
        ({"nsfw_score_opennsfw2": [0.5, 0.6], "nsfw_score_gantman": [0.9, 0.0]}, {"max_unsafe": 0.5}, {0}),
        ({"watermark_score": [0.5, 0.6]}, {"max_watermark": 0.5}, {0}),
        (
            {"clip_b32_similarity_score": [0.9, 0.9], "clip_l14_similarity_score": [0.2, 0.3]},
            {"min_similarity": 0.3},
            {1},
        ),
        ({"original_width": [100, 64], "original_height": [100, 63]}, {"image_size_px": 64}, {0}),
        # img2dataset's own tables: the stored side is every picture's.
        (
            {"width": [64] * 2, "height": [64] * 2, "original_width": [500, 90], "original_height": [400, 90]},
            {"min_image_size_px": 100, "image_size_px": 64},
            {0},
        ),
    ],
)
def test_scores_and_sizes_go_by_the_names_of_published_tables(
    tmp_path: Path, columns: dict[str, list[float]], setting: dict[str, object], kept: set[int]
) -> None:
    assert {0, 1} - set(fates(table_of(tmp_path, **columns), **setting)) == kept


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_the_tags_of_laion_400m_pass_where_they_say_unlikely(
    tmp_path: Path, kind: pa.DataType, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(tmp_path, NSFW=pa.array(["UNLIKELY", "UNSURE", "NSFW", None, "Unlikely "]).cast(kind))
    assert fates(table, max_unsafe=0.5) == dict.fromkeys([1, 2, 3], "unsafe")
    assert "column 'NSFW' holds words, read as nsfw = 1, unlikely = 0, unsure = 1" in capsys.readouterr().out


def test_a_column_of_words_or_lists_is_refused_where_a_filter_needs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = table_of(tmp_path, prediction=["good", "", "bad"], width=["large"] * 3, height=["low"] * 3)
    with pytest.raises(StepError, match=r"aesthetic is set, but column 'prediction' holds words \(such as 'good'\)"):
        fates(words, min_aesthetic_score=5.0)
    assert fates(words) == {}
    lists = table_of(tmp_path, similarity=[[0.1], [0.2]])
    with pytest.raises(StepError, match=r"column 'similarity' is of the type list<.*>, not a number"):
        fates(lists, min_similarity=0.1)
    assert not capsys.readouterr().out
    some = table_of(tmp_path, similarity=["0.5", "oops", "nan"])
    assert set(fates(some, min_similarity=0.1)) == {1, 2}
    assert "column 'similarity' that are no numbers (such as 'oops') count as missing: 1" in capsys.readouterr().out


def test_languages_and_lengths_of_captions_filter(tmp_path: Path) -> None:
    table = table_of(tmp_path, LANGUAGE=["en", "EN", "nl", None], caption=["größe", "four", "x" * 20, " "])
    assert fates(table, languages=("en",)) == {2: "language", 3: "no_caption"}
    lengths = {"min_caption_characters": 5, "max_caption_characters": 10}
    assert fates(table, **lengths) == {1: "short_caption", 2: "long_caption", 3: "no_caption"}


def test_known_sizes_save_the_download_and_unknown_ones_do_not(tmp_path: Path) -> None:
    table = table_of(tmp_path, WIDTH=[64, 63, 300, None, 0, 192], HEIGHT=[64, 100, 90, 10, 10, 64])
    expected = {1: "too_small", 2: "aspect_ratio"}
    assert fates(table, image_size_px=64, min_image_size_px=16, max_aspect_ratio=3.0) == expected
    assert fates(table, image_size_px=256, min_image_size_px=64, upscale=True, max_aspect_ratio=3.0) == expected


def test_a_threshold_without_its_column_is_refused_with_the_fix(tmp_path: Path) -> None:
    table = table_of(tmp_path, score=[0.1])
    with pytest.raises(
        StepError, match=r"filter on watermark .* score_columns=watermark=COLUMN: .* url, caption, score"
    ):
        fates(table, max_watermark=0.5)
    with pytest.raises(StepError, match="no column 'other'"):
        fates(table, score_columns=("watermark=other",))
    with pytest.raises(StepError, match=r"'beauty=score' is not SCORE=COLUMN with one of width, height, aesthetic, "):
        fates(table, score_columns=("beauty=score",))


def test_a_row_is_counted_under_its_first_filter_and_its_repetition_takes_its_place(tmp_path: Path) -> None:
    table = table_of(tmp_path, url=["a", "a", "a", " ", None], similarity=[0.1, 0.9, 0.9, 0.1, 0.9])
    assert fates(table, min_similarity=0.5) == {0: "similarity", 2: "duplicate", 3: "no_url", 4: "no_url"}


URLS = st.sampled_from(["a", "b", " a\u2003", "c", "d", "e", "f", "", None])
CAPTIONS = st.sampled_from(["a caption", " a caption", "a &amp; b", "a & b", "größe", "", None])


@given(
    st.lists(st.tuples(URLS, CAPTIONS, st.floats(0, 1)), min_size=1, max_size=60),
    st.integers(1, 7),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_rows_have_the_fates_and_keys_of_a_table_that_is_held_in_memory(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str | None, str | None, float]], batch: int, bits: int
) -> None:
    urls, captions, scores = (list(column) for column in zip(*rows, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "BATCH_ROWS", batch)
        patch.setattr(parts, "HASH_PART_BITS", bits)
        patch.setattr(parts, "HELD_BYTES", 100)
        table = table_of(tmp_path_factory.mktemp("table"), url=urls, caption=captions, similarity=scores)
        expected: dict[int, str] = {}
        kept: set[str] = set()
        for row, (url, caption, score) in enumerate(rows):
            address = (url or "").strip()
            checks = {
                "no_url": not address,
                "no_caption": not caption,
                "similarity": score < 0.5,
                "duplicate": address in kept,
            }
            cause = next((cause for cause, is_so in checks.items() if is_so), None)
            if cause:
                expected[row] = cause
            else:
                kept.add(address)
        assert fates(table, min_similarity=0.5) == expected
        screening = screen(table, DownloadSettings(min_similarity=0.5))
    assert len(screening.rows) <= (len(rows) >> bits) * 2 + 2
    known = np.sort(np.concatenate([np.empty(0, ROW), *screening.rows]), order="row")
    assert known["row"].tolist() == [row for row, url in enumerate(urls) if (url or "").strip()]
    spelled = [((urls[row] or "").strip(), html.unescape(captions[row] or "").strip()) for row in known["row"]]
    for field, words in (("url", [url for url, _ in spelled]), ("key", spelled)):
        assert len(set(zip(known[field].tolist(), words, strict=True))) == len(set(words)) == len(set(known[field]))


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        done = subprocess.run([sys.executable, "-c", SCREEN, str(rows)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    few, many = 1_000_000, 3_000_000
    assert peak(many) - peak(few) < 8 * (many - few)


SCREEN = """
import sys
import pyarrow as pa, pyarrow.compute as pc
from params.programs import DownloadSettings
from steps.data.collecting.screening import ROW, screen

urls = pa.array([f"https://{number % 977}.example/{number:08x}.jpg" for number in range(1 << 16)])

class Table:
    rows, url_column, caption_column, names = int(sys.argv[1]), "url", "caption", ("url", "caption")

    def batches(self, columns):
        for first in range(0, self.rows, len(urls)):
            some = pc.binary_join_element_wise(urls, str(first), "?").slice(0, self.rows - first)
            yield pa.record_batch({"url": some, "caption": some, "#lost": pa.nulls(len(some), pa.string())})

screening = screen(Table(), DownloadSettings(url_column="url", caption_column="caption"))
assert screening.fates.counts()[0] == Table.rows
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""
