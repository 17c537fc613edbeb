"""A quote that is opened and never closed costs its own line, wherever it stands."""

import csv
import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.tables import stray_quotes
from steps.data.tables.stray_quotes import whole_lines

URLS = [f"http://x/{row}.jpg" for row in range(8)]


def mended(lines: Sequence[str], names: Sequence[str] = (), end: str = "\n") -> tuple[list[str], int]:
    """Return the lines that are handed on, and how many are left out."""
    lost: list[int] = []
    text = "".join(line + end for line in lines)
    stream = whole_lines(io.BytesIO(text.encode()), ",", names, "url", lambda count, _: lost.append(count))
    return [line for line in stream.read().decode().split(end) if line], sum(lost)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("form", "stray"),
    [
        ("url,caption|{url},a thing", 'http://x/odd.jpg,"the best'),
        ("url,caption|{url},a thing", '"http://x/odd.jpg,the best'),
        ('url,caption|"{url}","a thing"', '"http://x/odd.jpg","the best'),
        ("caption,url|a thing,{url}", '"the best,http://x/odd.jpg'),
        ('caption,url,alt|a thing,{url},"b"', '"the best,http://x/odd.jpg,b'),
        ("url,caption,alt|{url},a thing,b", 'http://x/odd.jpg,the best,"b'),
        ("url,caption|/files/{url},a thing", '/files/odd.jpg,"the best'),
    ],
)
def test_a_stray_quote_costs_its_line_alone(form: str, stray: str, end: str) -> None:
    names, _, row = form.partition("|")
    rows = [row.format(url=url) for url in URLS]
    assert mended([names, *rows[:3], stray, *rows[3:]], end=end) == ([names, *rows], 1)
    assert mended([names, *rows, stray], end=end)[0] == [names, *rows]
    assert mended([*rows[:3], stray, *rows[3:]], names.split(","), end) == (rows, 1)


def test_each_of_several_stray_quotes_costs_its_line() -> None:
    rows = [f"{url},a thing" for url in URLS]
    strays = [f'http://x/odd{row}.jpg,"open {row}' for row in range(3)]
    lines = [rows[0], strays[0], strays[1], 'http://x/12.jpg,a 12" record', rows[1], strays[2], 'http://x/q.jpg,"a, b"']
    assert mended(["url,caption", *lines]) == (["url,caption", *(line for line in lines if line not in strays)], 3)


def test_where_the_owner_of_the_next_line_cannot_be_told_both_are_lost() -> None:
    lines = ["caption,url", f"a,{URLS[0]}", f'"b,{URLS[1]}', f'a 12" record,{URLS[2]}', f"c,{URLS[3]}"]
    assert mended(lines) == ([lines[0], lines[1], lines[4]], 2)


@pytest.mark.parametrize(
    ("stray", "lines"),
    [
        ('"open,http://x/odd.jpg,b', ['"two\nlines",http://x/1.jpg,b', "c,http://x/2.jpg,d"]),
        ('open,"http://x/odd.jpg,b', ['"two\nlines","http://x/1.jpg","b"']),
        ('open,http://x/odd.jpg,"b', ['"two\nlines",http://x/1.jpg,"b"', '"a, b",http://x/2.jpg,d']),
    ],
)
def test_a_row_of_several_lines_behind_a_stray_quote_is_kept(stray: str, lines: list[str]) -> None:
    whole = "\n".join(["caption,url,alt", *lines]).split("\n")
    assert mended([whole[0], stray, *whole[1:]]) == (whole, 1)


def test_a_quote_that_is_open_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stray_quotes, "MAX_RECORD_BYTES", 1 << 12)
    monkeypatch.setattr(stray_quotes, "BLOCK_BYTES", 1 << 10)
    lines = ["url,caption", f'{URLS[0]},"open', *["no row"] * 3000, f"{URLS[1]},a"]
    assert mended(lines) == ([lines[0], *lines[2:]], 1)


captions = st.text('ab ,"\n:/', max_size=12)


@given(st.lists(captions, min_size=1, max_size=12), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_whatever_captions_a_writer_quotes_the_table_is_handed_on_as_it_is(texts: list[str], block: int) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([("url", "caption"), *zip(URLS * 2, texts, strict=False)])
    with pytest.MonkeyPatch.context() as patch:
        # The line of names is in the first block.
        patch.setattr(stray_quotes, "BLOCK_BYTES", 12 + block)
        lost: list[int] = []
        stream = whole_lines(
            io.BytesIO(buffer.getvalue().encode()), ",", (), "url", lambda count, _: lost.append(count)
        )
        assert (stream.read().decode(), lost) == (buffer.getvalue(), [])
