"""The playground in a real browser, over an endpoint whose pictures are known."""

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from params.programs import ServeArguments
from params.settings import load_settings
from pipeline_definition.prompting.endpoint import ServerEndpoint
from tests.pipeline_definition.pages.axe import serious
from tests.pipeline_definition.pages.chromium import Browser, browser, find_browser
from tests.pipeline_definition.prompting.conftest import DrawingServer, grey, refusal, serving
from tests.pipeline_definition.prompting.playground_page import PlaygroundPage

EXAMPLES = ("a red dot", "a moon at the left")

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
            Playground(both, limits, tmp_path_factory.mktemp("kept"), examples=EXAMPLES),
            "127.0.0.1",
            0,
            open_browser=False,
            block=False,
        )
        # It makes an event loop for each of its locks and closes none: they go here, not in the midst of a test.
        gc.collect()
        yield url
        application.get_blocks().close(verbose=False)
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
    assert "seed 7" in page.text("#pictures figcaption")


def test_an_adapter_is_asked_for_by_its_name(page: PlaygroundPage, left: DrawingServer) -> None:
    page.type("Prompt", "a moon")
    page.type("Adapter", "moon")
    page.click("#draw")
    page.pictures("#pictures")
    assert (left.requests[-1]["adapter"], left.requests[-1]["adapter_scale"]) == ("moon", 1.0)


def test_long_prompts_are_asked_for_by_their_box_alone_and_come_back_from_the_history(
    page: PlaygroundPage, left: DrawingServer
) -> None:
    box = "[...document.querySelectorAll('label')].find(one => one.innerText.includes('Long prompts')).control"
    for count, text in enumerate(("a short one", "a (long:1.2) one"), 1):
        page.type("Prompt", text)
        if count > 1:
            page.tab.wait_for(f"(() => {{ {box}.click(); return true; }})()")
        page.click("#draw")
        page.pictures("#history", count)
    assert [asked.get("long_prompts") for asked in left.requests] == [None, True]
    for text, checked in (("a short one", "false"), ("a (long:1.2) one", "true")):
        page.click_text("#history button", text)
        page.tab.wait_for(f"document.querySelector('textarea').value === '{text}' && {box}.checked === {checked}")


def test_nothing_is_asked_of_anyone_else(page: PlaygroundPage, url: str) -> None:
    page.type("Prompt", "a")
    page.click("#draw")
    page.pictures("#pictures")
    asked = page.tab.seen().requests
    assert len(asked) > 5
    assert [address for address in asked if not address.startswith((url, "blob:"))] == []


def test_a_refusal_stays_until_it_is_closed_and_leaves_pictures_and_history_usable(
    page: PlaygroundPage, left: DrawingServer
) -> None:
    page.type("Prompt", "first")
    page.click("#draw")
    page.pictures("#history")
    left.refusals = [refusal(422, "steps: at most <10>")]
    page.type("Prompt", "second")
    page.click("#draw")
    assert "steps: at most <10>" in page.text("[role=alert]")
    assert (len(page.pictures("#pictures")), len(page.pictures("#history"))) == (1, 1)
    page.click_text("#history button", "first")
    page.tab.wait_for("document.querySelector('textarea').value === 'first'")
    assert page.tab.evaluate("document.querySelectorAll('[role=alert]').length") == 1
    page.click("[role=alert] button")
    page.tab.wait_for("document.querySelectorAll('[role=alert]').length === 0")


def test_without_a_prompt_it_asks_for_one_and_no_endpoint(page: PlaygroundPage, left: DrawingServer) -> None:
    page.type("Prompt", "  ")
    page.click("#draw")
    assert "Write a prompt first" in page.text("[role=alert]")
    assert left.requests == []


def test_examples_of_the_study_fill_the_prompt(page: PlaygroundPage, left: DrawingServer) -> None:
    page.click_text("button.gallery-item, .gallery-item", EXAMPLES[1])
    page.tab.wait_for(f"document.querySelector('textarea').value === '{EXAMPLES[1]}'")


def test_code_of_a_picture_draws_it_again(page: PlaygroundPage, left: DrawingServer, tmp_path: Path) -> None:
    page.type("Prompt", "it's a <b>star</b>")
    page.click("#draw")
    page.pictures("#pictures")
    texts = page.tab.evaluate("[...document.querySelectorAll('#pictures pre')].map(one => one.textContent)")
    assert len(texts) == 3
    for text in texts[:2]:
        command = ["bash", "-c", text] if text.startswith("curl") else [sys.executable, "-c", text]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        asked = left.requests[-1]
        assert (asked["prompt"], asked["seed"], asked["num_images"]) == ("it's a <b>star</b>", 7, 1)
    assert len(left.requests) == 3
    assert "sagemaker-runtime" in texts[2]


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


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (1440, 900), (1920, 1080), (390, 844)])
def test_pictures_are_seen_whole_and_the_history_is_small(
    page: PlaygroundPage, width: int, height: int, count: int
) -> None:
    page.tab.open(page.url, width, height)
    page.type("Prompt", "a")
    page.number("Pictures", count)
    page.click("#draw")
    page.pictures("#pictures", count)
    page.pictures("#history", count)
    page.tab.wait_for("scrollY >= 0 && document.querySelector('#pictures img').getBoundingClientRect().bottom > 0")
    page.tab.wait_for(f"{count} === document.querySelectorAll('#pictures img').length")
    assert page.hidden("#pictures") == [0.0] * count
    assert page.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.box("#history img")
    assert small.right - small.left < 160


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
    assert one["width"] == 64
    # Both are in the history, which is the other tab's, too.
    page.pictures("#history", 2)
    page.click_text("#history button", "a green star")
    page.tab.wait_for("document.querySelector('#draw').offsetParent !== null")


@pytest.mark.parametrize("dark", [False, True])
def test_everything_has_a_name_and_can_be_read(page: PlaygroundPage, left: DrawingServer, dark: bool) -> None:
    page.tab.open(f"{page.url}?__theme={'dark' if dark else 'light'}", 1280)
    page.tab.wait_for("document.querySelector('#draw') !== null")
    page.type("Prompt", "a")
    page.click("#draw")
    page.pictures("#pictures")
    page.click("#pictures summary")
    left.refusals = [refusal(422, "no")]
    page.click("#draw")
    page.text("[role=alert]")
    assert serious(page.tab) == []
