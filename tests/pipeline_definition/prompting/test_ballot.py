"""A vote from the pictures to the scores, without a browser."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from fastapi.testclient import TestClient

from pipeline_definition.errors import OperatorError
from pipeline_definition.prompting.vote_page import vote_app
from pipeline_definition.prompting.votes import PicturePair, VoteFile
from tests.pipeline_definition.prompting.conftest import serving
from tests.pipeline_definition.prompting.two_models import PROMPTS, Painter, ballot, colour_of

Side = Literal["left", "right"]
BOTH: tuple[Side, Side] = ("left", "right")


@pytest.fixture
def servers() -> Iterator[dict[str, Painter]]:
    with serving(Painter("trained")) as trained, serving(Painter("generic")) as generic:
        yield {"trained": trained, "generic": generic}


def pair(number: int = 0, drawn_by: tuple[str, str] = ("1", "2")) -> PicturePair:
    return PicturePair(f"prompt {number}", "", 0, ("a", "b"), drawn_by, {"steps": 4}, (f"a{number}", f"b{number}"))


def test_each_pair_has_both_models_in_an_order_that_seed_and_voter_decide(
    servers: dict[str, Painter], tmp_path: Path
) -> None:
    made = ballot(servers, tmp_path / "votes.jsonl", seeds=tuple(range(20)))
    assert len(made.pairs) == 60
    left = [colour_of(made.picture("Ann", name, "left")) for name in made.waiting("Ann")]
    assert {colour_of(made.picture("Ann", made.waiting("Ann")[0], side)) for side in BOTH} == {"trained", "generic"}
    assert 15 < left.count("trained") < 45, "neither side is one model's"
    assert made.waiting("Ann") != made.waiting("Bob")
    assert made.waiting("Ann") == ballot(servers, tmp_path / "votes.jsonl", seeds=tuple(range(20))).waiting("Ann")
    assert made.waiting("Ann") != replace(made, seed=1).waiting("Ann")


def test_nothing_that_the_browser_gets_names_a_model(servers: dict[str, Painter], tmp_path: Path) -> None:
    made = ballot(servers, tmp_path / "votes.jsonl")
    browser, name = TestClient(vote_app(made)), made.waiting("Ann")[0]
    assert b"trained" in next(iter(made.pictures.values())).read_bytes() + b"".join(
        path.read_bytes() for path in made.pictures.values()
    ), "the files as they came do"
    addresses = ["/", "/vote.js", "/pair?voter=Ann", *(f"/picture?voter=Ann&name={name}&side={s}" for s in BOTH)]
    for answer in map(browser.get, addresses):
        assert answer.status_code == 200
        text = (answer.content + json.dumps(dict(answer.headers)).encode()).lower()
        assert not any(word in text for word in (b"trained", b"generic", b"arn:"))


def test_votes_are_counted_for_the_model_whose_picture_was_chosen_and_are_kept(
    servers: dict[str, Painter], tmp_path: Path
) -> None:
    file = tmp_path / "votes.jsonl"
    browser = TestClient(vote_app(ballot(servers, file)))
    for done in range(6):
        shown = browser.get("/pair", params={"voter": "Ann", "name": ""}).json()
        assert (shown["done"], shown["all"]) == (done, 6)
        assert shown["prompt"] in PROMPTS
        about = {"voter": "Ann", "name": shown["pair"]}
        sides = {colour_of(browser.get("/picture", params={**about, "side": side}).content): side for side in BOTH}
        chosen = {"voter": "Ann", "pair": shown["pair"], "chosen": sides["trained"]}
        assert browser.post("/vote", json=chosen).status_code == 204
        assert len(file.read_text().splitlines()) == done + 1
    assert browser.get("/pair", params={"voter": "Ann"}).json() == {"pair": "", "done": 6, "all": 6}
    assert browser.get("/pair", params={"voter": "Bob"}).json()["done"] == 0
    votes = VoteFile(file).votes
    assert {(vote.pair.models[["first", "second"].index(vote.choice)], vote.voter) for vote in votes} == {
        ("trained", "Ann")
    }
    assert {vote.shown_left for vote in votes} <= {"trained", "generic"}
    drawn = sum(len(server.requests) for server in servers.values())
    assert ballot(servers, file).waiting("Ann") == []
    # Only the picture that says which model draws is drawn again.
    assert sum(len(server.requests) for server in servers.values()) == drawn + 2


@pytest.mark.parametrize(
    "sent",
    [
        {"voter": "", "pair": "x", "chosen": "left"},
        {"voter": "Ann", "pair": "x", "chosen": "both"},
        {"voter": "A" * 61, "pair": "x", "chosen": "left"},
        {"voter": "Ann", "pair": "no such pair", "chosen": "left"},
    ],
)
def test_what_is_no_vote_is_refused(servers: dict[str, Painter], tmp_path: Path, sent: dict[str, str]) -> None:
    browser = TestClient(vote_app(ballot(servers, tmp_path / "votes.jsonl")))
    assert browser.post("/vote", json=sent).status_code in (404, 422)
    # A page of another site can send no JSON without being asked first.
    assert browser.post("/vote", content=json.dumps(sent), headers={"Content-Type": "text/plain"}).status_code == 422
    assert not (tmp_path / "votes.jsonl").exists()


def test_the_last_vote_of_a_voter_on_a_pair_counts(tmp_path: Path) -> None:
    file = VoteFile(tmp_path / "votes.jsonl")
    file.cast("Ann", pair(), "first", "a")
    file.cast("Ann", pair(), "neither", "a")
    file.cast("Bob", pair(), "second", "b")
    for read in (file, VoteFile(tmp_path / "votes.jsonl")):
        assert [(vote.voter, vote.choice) for vote in read.votes] == [("Ann", "neither"), ("Bob", "second")]


def test_a_kill_loses_no_vote_and_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    program = (
        "import pathlib, sys\n"
        "from pipeline_definition.prompting.votes import PicturePair, VoteFile\n"
        "file = VoteFile(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    made = ('a', 'b'), ('1', '2'), {'steps': 4}, (f'a{number}', f'b{number}')\n"
        "    pair = PicturePair(f'prompt {number}', '', 0, *made)\n"
        "    file.cast('Ann', pair, 'first', 'a')\n"
        "    print(number, flush=True)\n"
    )
    voting = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert voting.stdout is not None
    told = [int(next(voting.stdout)) for _ in range(30)]
    os.kill(voting.pid, signal.SIGKILL)
    told += [int(line) for line in voting.stdout]
    voting.wait()
    voting.stdout.close()
    assert {vote.pair.prompt for vote in VoteFile(path).votes} >= {f"prompt {number}" for number in told}
    with path.open("ab") as file:
        file.write(b'{"voter": "Ann", "pa')
    again = VoteFile(path)
    assert again.unread == 1
    again.cast("Bob", pair(), "second", "a")
    assert [vote.voter for vote in VoteFile(path).votes].count("Bob") == 1


def test_votes_on_another_model_of_the_same_name_are_never_counted_together(tmp_path: Path) -> None:
    file = VoteFile(tmp_path / "votes.jsonl")
    file.cast("Ann", pair(), "first", "a")
    file.refuse_others(pair(1))
    with pytest.raises(OperatorError, match=r"'b' as another model.*--votes"):
        file.refuse_others(pair(1, drawn_by=("1", "3")))
    with pytest.raises(OperatorError, match="other settings"):
        file.refuse_others(replace(pair(1), settings={"steps": 5}))
    file.cast("Ann", pair(1, drawn_by=("1", "3")), "first", "a")
    with pytest.raises(OperatorError, match="another model"):
        VoteFile(tmp_path / "votes.jsonl")


def test_one_model_under_two_names_is_refused(servers: dict[str, Painter], tmp_path: Path) -> None:
    servers["generic"].model = "trained"
    with pytest.raises(OperatorError, match="trained and generic draw with the same model"):
        ballot(servers, tmp_path / "votes.jsonl")
