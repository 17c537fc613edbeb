"""The page in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline_definition.pages.axe import serious
from tests.pipeline_definition.pages.chromium import CLIPPED, Browser, browser, find_browser
from tests.pipeline_definition.report.conftest import MAKERS, PRICES

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed"),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(find_browser() or "", tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module", params=list(MAKERS))
def page(request: pytest.FixtureRequest, named_page: Callable[..., Path]) -> Path:
    return named_page(request.param, PRICES)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width_px", [390, 768, 1280])
def test_it_renders_without_a_complaint_an_outside_request_or_overflow(
    tab: Browser, page: Path, width_px: int, dark: bool
) -> None:
    seen = tab.open(page, width_px, dark=dark)
    assert seen.complaints == []
    assert seen.requests == [page.resolve().as_uri()]
    assert tab.evaluate("innerWidth") == width_px
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert tab.evaluate("document.querySelector('h1').getBoundingClientRect().height") > 20


@pytest.mark.parametrize(
    ("width_px", "paper"), [(390, False), (1280, False), (720, True)], ids=["phone", "screen", "a4"]
)
def test_no_cell_of_a_table_is_cut(tab: Browser, page: Path, width_px: int, paper: bool) -> None:
    tab.open(page, width_px, paper=paper)
    tab.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert tab.evaluate(CLIPPED) == []


def test_dark_is_dark_and_light_is_light(tab: Browser, page: Path) -> None:
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
    tab.open(page, 1280, dark=False)
    assert tab.evaluate(lightness) > 600
    tab.open(page, 1280, dark=True)
    assert tab.evaluate(lightness) < 150


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(tab: Browser, page: Path, dark: bool) -> None:
    """WCAG 2 AA asks for 4.5 between text and ground: https://www.w3.org/TR/WCAG22/#contrast-minimum."""
    tab.open(page, 1280, dark=dark)
    for colour in ("--ink", "--muted", "--pass", "--fail"):
        assert tab.evaluate(CONTRAST % colour) >= 4.5, colour


def test_axe_finds_nothing_serious(tab: Browser, page: Path) -> None:
    tab.open(page, 1280)
    tab.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert serious(tab) == []


def test_a_phone_shows_the_standing_graph_and_a_screen_the_lying_one(tab: Browser, page: Path) -> None:
    shown = "[...document.querySelectorAll('svg.graph')].filter(g => g.getBoundingClientRect().width > 0).length"
    for width_px in (390, 1280):
        tab.open(page, width_px)
        assert tab.evaluate(shown) == 1


@pytest.mark.parametrize("width_px", [390, 1280])
def test_the_scorecards_charts_tables_and_frame_fit_and_nothing_in_the_frame_runs_or_is_fetched(
    tab: Browser, named_page: Callable[..., Path], width_px: int
) -> None:
    seen = tab.open(named_page("third", PRICES), width_px)
    tab.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert tab.evaluate("document.querySelectorAll('#scorecard svg').length") == 3
    inside = "[...document.querySelectorAll('#scorecard svg, #scorecard table, #copies iframe')].every(one => "
    inside += (
        "{ const at = one.getBoundingClientRect(); return at.left >= 0 && at.width > 200 && at.right <= innerWidth })"
    )
    assert tab.evaluate(inside)
    assert tab.evaluate(CLIPPED) == []
    assert not any("example.com" in address for address in seen.requests)
    assert tab.evaluate("document.title").startswith("Passed the quality gate")


CONTRAST = """
(() => {
  const colour = name => {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
    probe.remove();
    return parts.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const [a, b] = [colour("%s"), colour("--paper")].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})()
"""
