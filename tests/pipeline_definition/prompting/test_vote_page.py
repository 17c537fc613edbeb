"""People vote in a real browser: by keyboard, by touch, with another voter, and after everything has ended."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from pipeline_definition.prompting.vote_page import vote_app
from pipeline_definition.prompting.votes import Ballot, VoteFile
from tests.pipeline_definition.pages.axe import serious
from tests.pipeline_definition.pages.chromium import Browser, browser, find_browser
from tests.pipeline_definition.prompting.conftest import serving
from tests.pipeline_definition.prompting.two_models import Painter, ballot

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed"),
]
READY = "document.querySelector('#left img').naturalWidth > 0 && !document.querySelector('#vote').hidden"
FAR = "document.querySelector('#far').textContent"
# The share of a picture's box that lies outside of the window.
HIDDEN = """Math.max(...[...document.querySelectorAll('#left img, #right img')].map(image => {
  const box = image.getBoundingClientRect();
  return 1 - (Math.min(box.bottom, innerHeight) - Math.max(box.top, 0)) / box.height;
}))"""


@contextmanager
def voting(made: Ballot) -> Iterator[str]:
    """Serve the page in a thread."""
    server = uvicorn.Server(uvicorn.Config(vote_app(made), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def servers() -> Iterator[dict[str, Painter]]:
    with serving(Painter("trained")) as trained, serving(Painter("generic")) as generic:
        yield {"trained": trained, "generic": generic}


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Browser]:
    with browser(find_browser() or "", tmp_path / "profile") as opened:
        yield opened


def press(tab: Browser, key: str) -> None:
    tab.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    tab.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def begin(tab: Browser, voter: str) -> None:
    tab.evaluate(f"document.querySelector('#voter').value = '{voter}'")
    tab.evaluate("document.querySelector('#who button').click()")
    tab.wait_for(READY)


def judge(tab: Browser, key: str, done: int) -> None:
    press(tab, key)
    tab.wait_for(f"{FAR}.startsWith('{done} of')")


def chosen(file: Path, voter: str) -> list[str]:
    """Return where each chosen picture stood."""
    votes = [vote for vote in VoteFile(file).votes if vote.voter == voter]
    models = [{"first": v.pair.models[0], "second": v.pair.models[1], "neither": ""}[v.choice] for v in votes]
    sides = {True: "left", False: "right"}
    return [sides[m == v.shown_left] if m else "neither" for m, v in zip(models, votes, strict=True)]


def test_a_vote_by_keyboard_goes_on_after_the_browser_and_the_server_have_ended(
    servers: dict[str, Painter], tab: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "votes.jsonl"
    with voting(ballot(servers, file)) as address:
        seen = tab.open(address, 1280)
        assert all(request.startswith(address) for request in seen.requests)
        begin(tab, "Ann")
        for done, key in enumerate(("1", "ArrowRight", "0", "2"), 1):
            judge(tab, key, done)
        assert chosen(file, "Ann") == ["left", "right", "neither", "right"]
        press(tab, "Backspace")
        tab.wait_for(f"{READY} && document.querySelector('#back') && true")
        time.sleep(0.2)
        judge(tab, "1", 4)
        ends = time.monotonic() + 20
        while sorted(chosen(file, "Ann")) != ["left", "left", "neither", "right"]:
            assert time.monotonic() < ends, "the last vote counts"
            time.sleep(0.1)
        tab.open(address, 1280)
        tab.wait_for(READY)
        assert tab.evaluate(FAR) == "4 of 6 pairs judged", "a closed page goes on"
    with voting(ballot(servers, file)) as address:
        tab.open(address, 1280)
        # Another port is another site to a browser, which asks for the name again.
        begin(tab, "Ann")
        assert tab.evaluate(FAR) == "4 of 6 pairs judged", "a server that is started again goes on"
        judge(tab, "ArrowLeft", 5)
        judge(tab, "ArrowDown", 6)
        tab.wait_for("!document.querySelector('#done').hidden")
        tab.evaluate("document.querySelector('#name').click()")
        begin(tab, "<b>Bob</b>")
        assert tab.evaluate(FAR) == "0 of 6 pairs judged"
        assert tab.evaluate("document.querySelector('#name').textContent") == "voting as <b>Bob</b>: change"
        tab.evaluate("document.querySelector('#right').click()")
        tab.wait_for(f"{FAR}.startsWith('1 of')")
        assert chosen(file, "<b>Bob</b>") == ["right"]
        assert tab.seen().complaints == []
    press(tab, "1")
    tab.wait_for("!document.querySelector('#trouble').hidden")
    assert "judged pairs stay judged" in tab.evaluate("document.querySelector('#trouble').textContent")


@pytest.mark.parametrize(("width_px", "height_px"), [(1280, 800), (1920, 1080), (390, 844), (360, 640), (844, 390)])
def test_both_pictures_the_prompt_and_the_buttons_are_seen_at_once(
    servers: dict[str, Painter], tab: Browser, tmp_path: Path, width_px: int, height_px: int
) -> None:
    with voting(ballot(servers, tmp_path / "votes.jsonl")) as address:
        tab.open(address, width_px, height_px)
        begin(tab, "Ann")
        assert tab.evaluate(HIDDEN) <= 0
        assert serious(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        last = "Math.max(...[...document.querySelectorAll('[data-chosen]')].map(b => b.getBoundingClientRect().bottom))"
        assert tab.evaluate(f"{last} - innerHeight") <= 0
        sides = "[...document.querySelectorAll('#left img, #right img')].map(i => i.getBoundingClientRect().height)"
        assert min(tab.evaluate(sides)) > 120
