"""The plan's and the business case's pages in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from params.files import write_text
from pipeline_definition.cost.business_case import answers_of
from pipeline_definition.cost.business_inputs import EXAMPLE_FILE, load_case
from pipeline_definition.cost.business_page import case_document
from pipeline_definition.cost.plan import plan
from pipeline_definition.cost.plan_page import plan_document
from pipeline_definition.pages.document import Document
from pipeline_definition.pages.html import to_html
from tests.pipeline_definition.cost.samples import definition, settings
from tests.pipeline_definition.pages.chromium import Browser, browser, find_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed"),
]


def documents() -> dict[str, Document]:
    found = plan(settings(), definition(), {}, 10.0, 5000.0)
    return {"plan": plan_document(found, "sd"), "case": case_document(answers_of(load_case(EXAMPLE_FILE)))}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(find_browser() or "", tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    for name, document in documents().items():
        write_text(place / f"{name}.html", to_html(document))
    return place


@pytest.mark.parametrize("width_px", [390, 1280])
@pytest.mark.parametrize("name", ["plan", "case"])
def test_it_renders_without_a_complaint_an_outside_request_or_overflow(
    tab: Browser, folder: Path, name: str, width_px: int
) -> None:
    page = folder / f"{name}.html"
    seen = tab.open(page, width_px, dark=width_px == 390)
    assert seen.complaints == []
    assert seen.requests == [page.resolve().as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert tab.evaluate("document.querySelector('svg.chart').getBoundingClientRect().height") > 40
