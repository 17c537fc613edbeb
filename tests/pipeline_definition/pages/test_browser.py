"""Every page but the run's in a real browser: on a screen, on a phone and on paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from params.files import write_bytes, write_text
from pipeline_definition.cost.business_case import answers_of
from pipeline_definition.cost.business_inputs import EXAMPLE_FILE, load_case
from pipeline_definition.cost.business_page import case_document
from pipeline_definition.cost.plan import plan
from pipeline_definition.cost.plan_page import plan_document
from pipeline_definition.pages.html import to_html
from pipeline_definition.prompting import comparison_page, study
from pipeline_definition.prompting.comparison import Comparison, Contender, Shot, Standing
from pipeline_definition.prompting.endpoint import Answer, DrawnPicture, ServerEndpoint
from pipeline_definition.prompting.study_plan import Grid, make_plan
from pipeline_definition.prompting.study_results import ScoredTrial, StudyProvenance, results
from tests.pipeline_definition.cost.samples import definition, settings
from tests.pipeline_definition.pages.axe import serious
from tests.pipeline_definition.pages.chromium import CLIPPED, Browser, browser, find_browser
from tests.pipeline_definition.prompting.conftest import grey

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed"),
]
PROMPTS = ("a lighthouse at dusk", "a red dot", "a ring", "two bars")
PAGES = ("plan", "case", "comparison", "study")


def compared() -> Comparison:
    def standing(address: str, score: float) -> Standing:
        answer = Answer((DrawnPicture(grey(90), "png", 7, False, False),), "m", {}, 0.5, 1.0)
        shots = [Shot(text, 7, answer, score + 0.01 * len(text)) for text in PROMPTS]
        return Standing(Contender(address, ServerEndpoint(address), "ml.g5.12xlarge", 7.09), tuple(shots))

    return Comparison((standing("http://127.0.0.1:44365", 0.2), standing("http://127.0.0.1:35111", 0.3)), "c" * 64)


def write_study(path: Path) -> None:
    # Words that nobody would write, and that no column is wide enough for.
    words = ("oil painting, on canvas, by somebody with a long name, 8k", "{prompt}" + "unbroken_" * 9)
    planned = make_plan(PROMPTS, 1, 0, Grid(words, (1.0, 3.0, 10.25), (10, 25), ("dpm++", "euler")))
    picture = path.with_suffix(".png")
    write_bytes(picture, grey(90))
    scored = [ScoredTrial(trial, picture, 0.01 * number) for number, trial in enumerate(planned.trials)]
    about = StudyProvenance("sd-production", "model/1", "c" * 64)
    study.write_page(path, planned, results(planned, scored), about, scored)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(find_browser() or "", tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    options = plan(settings(), definition(), {}, 10.0, 5000.0)
    write_text(place / "plan.html", to_html(plan_document(options, "sd")))
    write_text(place / "case.html", to_html(case_document(answers_of(load_case(EXAMPLE_FILE)))))
    (place / "comparison.html").write_text(comparison_page.render(compared(), {"steps": 25}), encoding="utf-8")
    write_study(place / "study.html")
    return place


@pytest.mark.parametrize("width_px", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_it_renders_without_a_complaint_an_outside_request_or_overflow(
    tab: Browser, folder: Path, name: str, width_px: int
) -> None:
    page = folder / f"{name}.html"
    seen = tab.open(page, width_px, dark=width_px == 390)
    assert seen.complaints == []
    assert seen.requests == [page.resolve().as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert tab.evaluate("document.querySelector('svg.chart, img').getBoundingClientRect().height") > 40


@pytest.mark.parametrize(
    ("width_px", "paper"), [(390, False), (1280, False), (700, True)], ids=["phone", "screen", "paper"]
)
@pytest.mark.parametrize("name", PAGES)
def test_no_cell_of_a_table_is_cut(tab: Browser, folder: Path, name: str, width_px: int, paper: bool) -> None:
    tab.open(folder / f"{name}.html", width_px, paper=paper)
    assert tab.evaluate("document.querySelectorAll('.scroll table').length") > 0
    assert tab.evaluate(CLIPPED) == []


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(tab: Browser, folder: Path, name: str) -> None:
    tab.open(folder / f"{name}.html", 1280)
    assert serious(tab) == []


def test_a_button_without_a_name_and_text_that_cannot_be_read_are_noticed(tab: Browser, folder: Path) -> None:
    tab.open(folder / "case.html", 1280)
    tab.evaluate("document.body.append(document.createElement('button'))")
    tab.evaluate("document.querySelector('p').style.color = '#ddd'")
    assert {finding.split(":")[0] for finding in serious(tab)} == {"button-name", "color-contrast"}


@pytest.mark.parametrize("width_px", [320, 390, 480, 600, 768, 1024, 1280, 1920, 718])
def test_the_study_keeps_every_column_at_every_width_and_on_a4(tab: Browser, folder: Path, width_px: int) -> None:
    """A4 at 96 px an inch without the browser's margins is 718 px wide."""
    tab.open(folder / "study.html", width_px, paper=width_px == 718)
    assert tab.evaluate(CLIPPED) == []
    decides = "[...document.querySelectorAll('#ranking td:nth-child(3)')].map(c => c.getBoundingClientRect().width)"
    widths = tab.evaluate(decides)
    assert len(widths) == 20
    assert min(widths) > 20
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_a_cell_that_is_cut_is_noticed(tab: Browser, folder: Path) -> None:
    tab.open(folder / "case.html", 1280)
    tab.evaluate("document.querySelector('.scroll').style.width = '12rem'")
    tab.evaluate("document.querySelector('table').className = ''")
    assert tab.evaluate(CLIPPED)
