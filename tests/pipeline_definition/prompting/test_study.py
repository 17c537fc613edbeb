"""A study over an endpoint that is known to draw well with guidance and badly with other words."""

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline_definition.cli import app
from pipeline_definition.prompting.intervals import reservation
from pipeline_definition.prompting.study_plan import Grid, Setting, StudyError, make_plan, read_prompts
from pipeline_definition.prompting.study_results import ScoredTrial, results
from shapes.captions import parse
from shapes.pictures import draw
from tests.pipeline_definition.prompting.conftest import DrawingServer, refusal, serving

PROMPTS = (
    "a small red circle at the top on a blue background",
    "a large green star on the left on a white background",
    "a small white cross at the bottom on a red background",
    "a large yellow ring in the centre on a black background",
    "a small cyan heart on the right on a pink background",
)
OPTIONS = ["--modifier", "oil <painting>", "--guidance", "1,3", "--steps", "5,15", "--sampler", "ddim", "--seeds", "2"]


class Artist(DrawingServer):
    """Draws what the prompt says if guidance is 3 and no word stands around it; otherwise a grey square."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = super().answer(request)
        if request["guidance_scale"] == 3 and request["prompt"] in PROMPTS:
            file = io.BytesIO()
            Image.fromarray(draw(parse(request["prompt"]), 64)).save(file, "PNG")
            answer["images"][0]["image"] = base64.b64encode(file.getvalue()).decode()
        return answer


@pytest.fixture(name="artist", scope="module")
def artist_fixture() -> Iterator[Artist]:
    with serving(Artist()) as server:
        yield server


@pytest.fixture(name="study", scope="module")
def study_fixture(artist: Artist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    prompts = folder / "prompts.txt"
    prompts.write_text("# five of the grid\n" + "\n\n".join(PROMPTS) + "\n")
    command = ["prompt-study", "--prompts", str(prompts), "--endpoint", artist.url, "--params", "params/local.yaml"]
    artist.refusals = [refusal(422, "sampler: no"), refusal(429, "full")]
    # A study that breaks off goes on where it was.
    assert CliRunner().invoke(app, [*command, *OPTIONS, "--out", str(folder / "out")]).exit_code == 1
    result = CliRunner().invoke(app, [*command, *OPTIONS, "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    assert "best" in result.output
    assert "Only 5 prompts" in result.output
    return folder / "out"


def test_what_draws_well_is_ranked_first_and_the_cheaper_of_two_alike_is_named(study: Path) -> None:
    found = json.loads((study / "study.json").read_text())
    best, cheapest = found["best"], found["cheapest_as_good"]
    assert (best["modifier"], best["guidance_scale"]) == ("{prompt}", 3)
    assert (cheapest["modifier"], cheapest["guidance_scale"], cheapest["steps"]) == ("{prompt}", 3, 5)
    assert best["clip_score"]["mean"] > 0.5 + found["ranking"][2]["clip_score"]["mean"]
    assert found["ranking"][2]["expected"] < best["expected"] <= best["clip_score"]["mean"]
    assert "Only 5 prompts" in found["reservation"]
    assert [entry["as_good"] for entry in found["ranking"]] == [True, True] + [False] * 6
    changes = {(item["factor"], item["value"]): item["change"] for item in found["effects"]}
    assert changes["guidance_scale", "3"]["low"] > 0.1
    assert changes["modifier", "{prompt}, oil <painting>"]["high"] < -0.1
    assert changes["steps", "15"] == {"mean": 0, "low": 0, "high": 0}
    assert (found["model"], len(found["clip"])) == ("grey/1", 64)


def test_the_table_has_a_line_for_each_picture_and_the_picture_is_there(study: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((study / "table.csv").read_text())))
    assert len(rows) == 5 * 2 * 2 * 2 * 2
    assert all((study / row["picture"]).is_file() for row in rows)
    assert len({row["picture"] for row in rows}) == len(rows)
    assert {row["unet_calls"] for row in rows} == {"5", "10", "15", "30"}


def test_each_picture_was_asked_for_once(study: Path, artist: Artist) -> None:
    asked = [json.dumps(request, sort_keys=True) for request in artist.requests]
    # The first says which model draws: it is asked for in each of the two runs.
    assert len(set(asked)) == 80
    assert len(asked) <= 80 + 3


def test_the_page_stands_alone_and_says_what_works(study: Path) -> None:
    page = (study / "study.html").read_text()
    assert "oil &lt;painting&gt;" in page
    assert "<painting>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "prompt alone | guidance 3 | 5 steps | ddim" in page
    assert "Only 5 prompts: expect wide intervals; 16 or more tell settings apart." in page
    # Best, cheapest, other words, worst, of each prompt.
    assert page.count("<img ") >= 4 * len(PROMPTS)


GRID = Grid((), (3.0,), (5, 15), ("ddim",))


def test_the_ranking_knows_noise_from_a_difference() -> None:
    plan = make_plan([f"prompt {number}" for number in range(12)], 1, 0, GRID)
    noise = [0.03, -0.02, 0.05, -0.05, 0.01, -0.01, 0.04, -0.04, 0.02, -0.03, 0.0, 0.0]

    def scored(gap: float) -> list[ScoredTrial]:
        return [
            ScoredTrial(
                trial,
                Path("a"),
                0.5 + (noise[plan.prompts.index(trial.prompt)] + gap if trial.setting.steps == 15 else 0.0),
            )
            for trial in plan.trials
        ]

    assert results(plan, scored(0.005)).cheapest.setting == Setting("{prompt}", 3.0, 5, "ddim")
    assert results(plan, scored(0.2)).cheapest.setting == Setting("{prompt}", 3.0, 15, "ddim")
    setting = Setting("{prompt}", 3.0, 5, "ddim")
    entry = next(entry for entry in results(plan, scored(0.2)).ranking if entry.setting == setting)
    assert entry.behind_best.mean == pytest.approx(0.2)


def test_of_three_prompts_no_interval_is_told_and_nothing_is_said_to_be_as_good_as_the_best(tmp_path: Path) -> None:
    plan = make_plan(["one", "two", "three"], 1, 0, GRID)
    scored = [ScoredTrial(trial, tmp_path, 0.5 + trial.setting.steps / 100) for trial in plan.trials]
    found = results(plan, scored)
    assert [entry.as_good for entry in found.ranking] == [True, False]
    assert found.cheapest == found.best
    assert (found.best.clip_score.low, found.ranking[1].behind_best.high) == (None, None)
    assert reservation(3).startswith("Fewer than 4 prompts: there are no intervals")
    assert reservation(16) == ""


def test_a_comment_says_of_what_kind_the_prompts_below_it_are(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\n# kind: two colours\nb\n# a remark\nc\n#kind: count\nd\nb\n")
    assert read_prompts(tmp_path / "p.txt") == {"a": "", "b": "two colours", "c": "two colours", "d": "count"}


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_a_file_without_prompts_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(StudyError, match=r"p\.txt: holds no prompts"):
        read_prompts(tmp_path / "p.txt")


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (Grid((), (), (5,), ("ddim",)), "--guidance"),
        (Grid((), (3.0,), (), ("ddim",)), "--steps"),
        (Grid((), (3.0,), (5,), ()), "--sampler"),
        (Grid((), tuple(map(float, range(200))), tuple(range(1, 200)), ("ddim",)), "name fewer"),
    ],
)
def test_a_study_of_nothing_or_of_too_much_is_refused(grid: Grid, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        make_plan(["a"], 1, 0, grid)


def test_a_prompt_that_stands_twice_is_drawn_once() -> None:
    assert len(make_plan(["a", "a"], 1, 0, GRID).trials) == 2
