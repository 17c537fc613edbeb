"""Tables in a terminal: whatever its width, no figure is cut and no word of a cell is lost."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from pipeline_definition.cli import app
from pipeline_definition.commands.options import FittedTable

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=12), min_size=1, max_size=5).map(" ".join)
FIGURES = st.integers(0, 10**12).map("${:,}".format)
HEADERS = ("step", "what it is", "dollars", "days")


def printed(rows: list[tuple[str, ...]], width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(FittedTable(HEADERS, rows, {2, 3}))
    return out.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS, FIGURES, FIGURES), min_size=1, max_size=4), st.integers(40, 200))
def test_every_figure_and_every_word_is_printed_whole(rows: list[tuple[str, ...]], width: int) -> None:
    shown = printed(rows, width)
    assert max(map(len, shown.splitlines())) <= width
    words = shown.split()
    for row in rows:
        assert set(" ".join(row).split()) <= set(words)


def test_what_does_not_fit_becomes_a_paragraph_for_each_row() -> None:
    rows = [("Encode", "ml.g5.48xlarge: 1,130,000,000 samples", "$21,657", "2.8")]
    assert [line.rstrip() for line in printed(rows, 34).splitlines()] == [
        "Encode",
        "  what it is: ml.g5.48xlarge:",
        "1,130,000,000 samples",
        "  dollars: $21,657",
        "  days: 2.8",
    ]
    assert printed(rows, 80).splitlines()[0].split() == ["step", "what", "it", "is", "dollars", "days"]


@pytest.mark.parametrize("words", [("cost", "forecast"), ("plan", "--deadline", "7d", "--budget", "5M")])
def test_at_80_columns_the_deciding_figures_stand_whole(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_definition.commands.options.console._width", 80)
    out = CliRunner().invoke(app, [*words, "--params", "params/sd2_base.yaml"]).output
    assert "…" not in out
    assert ("$177," if words[0] == "cost" else "$62,") in out
