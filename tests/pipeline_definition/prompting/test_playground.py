"""The playground in a real browser, over an endpoint whose pictures are known."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from params.programs import ServeArguments
from params.settings import load_settings
from pipeline_definition.prompting.endpoint import ServerEndpoint
from tests.pipeline_definition.pages.chromium import Browser, browser, find_browser
from tests.pipeline_definition.prompting.conftest import DrawingServer, grey, refusal, serving
from tests.pipeline_definition.prompting.playground_page import PlaygroundPage

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed"),
]


@pytest.fixture(name="left", scope="module")
def left_fixture() -> Iterator[DrawingServer]:
    with serving(DrawingServer()) as server:
        yield server


@pytest.fixture(name="right", scope="module")
def right_fixture() -> Iterator[DrawingServer]:
    with serving(DrawingServer()) as server:
        yield server


@pytest.fixture(name="url", scope="module")
def url_fixture(left: DrawingServer, right: DrawingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with warnings.catch_warnings():
        # gradio warns about its own use of others.
        warnings.simplefilter("ignore")
        from pipeline_definition.prompting.playground import Playground, launch

        endpoint = load_settings(Path("params/local.yaml")).endpoint
        limits = ServeArguments(**endpoint.model_dump(include=set(ServeArguments.model_fields)))
        both = [ServerEndpoint(server.url) for server in (left, right)]
        application, url = launch(
            Playground(both, limits, tmp_path_factory.mktemp("kept")), "127.0.0.1", 0, open_browser=False, block=False
        )
        yield url
        application.get_blocks().close(verbose=False)
    # It makes an event loop for each of its locks and closes none: they go here, not in the midst of another test.
    asyncio.set_event_loop(None)
    del application
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(name="tab", scope="module")
def tab_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(find_browser() or "", tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(name="page")
def page_fixture(tab: Browser, url: str, left: DrawingServer, right: DrawingServer) -> PlaygroundPage:
    for server in (left, right):
        server.requests.clear()
    page = PlaygroundPage(tab, url)
    page.open()
    return page


def test_a_prompt_gives_the_endpoints_own_file(page: PlaygroundPage, left: DrawingServer) -> None:
    page.type("Prompt", "a small red circle")
    page.type("Negative prompt", "blue")
    page.click("#draw")
    (picture,) = page.pictures("#pictures")
    (asked,) = left.requests
    # Byte for byte: with what it says about where it comes from.
    assert picture == grey(7)
    assert (asked["prompt"], asked["negative_prompt"]) == ("a small red circle", "blue")
    assert (asked["steps"], asked["guidance_scale"], asked["sampler"], asked["width"]) == (15, 3.0, "dpm++", 64)
    assert not {"seed", "adapter", "adapter_scale"} & asked.keys()
    assert "seed 7" in page.text("#about")


def test_an_adapter_is_asked_for_by_its_name(page: PlaygroundPage, left: DrawingServer) -> None:
    page.type("Prompt", "a moon")
    page.type("Adapter", "moon")
    page.click("#draw")
    page.pictures("#pictures")
    assert (left.requests[-1]["adapter"], left.requests[-1]["adapter_scale"]) == ("moon", 1.0)


def test_nothing_is_asked_of_anyone_else(page: PlaygroundPage, url: str) -> None:
    page.type("Prompt", "a")
    page.click("#draw")
    page.pictures("#pictures")
    asked = page.tab.seen().requests
    assert len(asked) > 5
    assert [address for address in asked if not address.startswith((url, "blob:"))] == []


def test_what_the_endpoint_refuses_is_shown(page: PlaygroundPage, left: DrawingServer) -> None:
    left.refusals = [refusal(422, "steps: at most 10")]
    page.type("Prompt", "a")
    page.click("#draw")
    page.tab.wait_for("document.body.innerText.includes('steps: at most 10')")


def test_a_click_on_the_history_brings_the_settings_back(page: PlaygroundPage, left: DrawingServer) -> None:
    page.type("Prompt", "first")
    page.click("#draw")
    page.pictures("#pictures")
    page.type("Prompt", "second")
    page.click("#draw")
    page.pictures("#history", 2)
    page.click_text("#history button", "first")
    page.tab.wait_for("document.querySelector('textarea').value === 'first'")
    page.click("#draw")
    page.pictures("#history", 3)
    # The seed that the endpoint chose the first time.
    assert (left.requests[2]["prompt"], left.requests[2]["seed"]) == ("first", 7)


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_are_seen_whole_and_the_history_is_small(page: PlaygroundPage, width: int) -> None:
    page.tab.open(page.url, width)
    page.type("Prompt", "a")
    page.click("#draw")
    page.pictures("#pictures")
    page.pictures("#history")
    for gallery in ("#pictures", "#history"):
        frame, picture, label = (page.box(f"{gallery} {part}") for part in (".gallery-container", "img", "label"))
        assert frame.top <= label.bottom <= picture.top, gallery
        assert picture.bottom <= frame.bottom, gallery
        assert frame.left <= picture.left < picture.right <= frame.right, gallery
    assert picture.right - picture.left < 160


def test_two_settings_side_by_side_share_prompt_and_seed(
    page: PlaygroundPage, left: DrawingServer, right: DrawingServer
) -> None:
    page.click_text("button[role=tab]", "Side by side")
    page.type("Prompt", "a green star")
    page.click("#draw-both")
    shown = [page.pictures(side)[0] for side in ("#left", "#right")]
    (one,), (two,) = left.requests, right.requests
    assert one == two
    assert shown == [grey(one["seed"]), grey(two["seed"])]
