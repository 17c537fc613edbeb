import functools
import re
from xml.etree import ElementTree

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from pipeline_definition.pages import charts

numbers = st.floats(-1e6, 1e6)
CHARTS = ["curves", "bars", "trials", "plan", "plane", "guidance", "dollars"]
LOSSES = [(64.0 * i, 1 / i) for i in range(1, 50)]


@functools.cache
def every_chart() -> dict[str, Markup]:
    fid = charts.Reading(9.1, 8.2, 10.3)
    return {
        "curves": charts.curves(
            "a", "loss", [charts.Series("loss", LOSSES), charts.Series("b", LOSSES[:3], True)], logarithmic=True
        ),
        "bars": charts.bars("c", "causes", [("timeout", 3.0, "3"), ("http 404", 1.0, "1")]),
        "trials": charts.trade_off("e", "trials", [(1, 0.5), (2, 0.6)], (1, 0.5), "s"),
        "plan": charts.trade_off("f", "plan", [(1, 5), (2, 3)], (1, 5), "days", limits=(3, 4), logarithmic=True),
        "plane": charts.plane("g", "FID and CLIP", [("model", charts.Reading(0.8), fid)], (0.6, None), "model"),
        "guidance": charts.plane(
            "h",
            "FID and CLIP",
            [("1", charts.Reading(0.7), fid), ("3", charts.Reading(0.8), fid)],
            (0.6, 90.0),
            "3",
            joined=True,
        ),
        "dollars": charts.curves("i", "gained", [charts.Series("", [(0, -5.0), (9, 5.0)])], "months", in_dollars=True),
    }


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_takes_its_colours_and_fonts_from_the_page(name: str) -> None:
    svg = every_chart()[name]
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
    assert colours and all(colour == "none" or colour.startswith("var(--") for colour in colours)
    assert "font-family" not in svg and "#0000" not in svg


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_brings_no_address_no_script_and_no_style_of_its_own(name: str) -> None:
    svg = every_chart()[name]
    assert "://" not in svg and "<style" not in svg and "<script" not in svg
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and "width" not in root.attrib
    assert root.attrib["aria-label"] and root.attrib["role"] == "img"


def test_ids_of_two_charts_are_kept_apart() -> None:
    first, second = (charts.curves(name, "", [charts.Series("loss", LOSSES)]) for name in ("a", "b"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]


def test_settings_of_the_user_change_nothing() -> None:
    before = every_chart()
    every_chart.cache_clear()
    with matplotlib.rc_context(
        {"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9, "svg.fonttype": "path"}
    ):
        assert every_chart() == before


def test_a_choice_beyond_a_limit_is_marked_as_a_failure() -> None:
    assert "var(--fail)" in every_chart()["plan"]
    assert "var(--fail)" not in every_chart()["trials"]


def test_names_from_outside_are_escaped() -> None:
    svg = charts.bars("a", "<b>", [("<script>", 1.0, "&")])
    assert "<script>" not in svg and "&lt;script&gt;" in svg


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30), st.booleans())
def test_the_frontier_holds_what_nothing_beats(points: list[tuple[float, float]], lower_is_better: bool) -> None:
    front = charts.frontier(points, lower_is_better)
    sign = 1 if lower_is_better else -1
    for cost, objective in points:
        assert any(c <= cost and sign * o <= sign * objective for c, o in front)
    for cost, objective in front:
        assert (cost, objective) in points
        assert not any(c <= cost and sign * o < sign * objective for c, o in points)


@given(st.integers(1, 5000))
def test_a_long_course_is_thinned_and_keeps_its_mean(length: int) -> None:
    thin = charts.thinned([(float(i), float(i % 7)) for i in range(length)])
    assert len(thin) == min(length, charts.MAX_POINTS)
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)
    assert min(y for _, y in thin) >= 0 and max(y for _, y in thin) <= 6
