"""Models are compared on the same prompts and seeds, by turns, and the page shows each pair."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline_definition.prompting import comparison
from pipeline_definition.prompting.clip_scores import ClipScores, ScoringError
from pipeline_definition.prompting.comparison import Comparison, Contender, Shot, Standing, compare, difference
from pipeline_definition.prompting.comparison_page import render
from pipeline_definition.prompting.endpoint import Answer, DrawnPicture
from tests.pipeline_definition.prompting.conftest import grey

PROMPTS = ["a red dot", "a <b>blue</b> bar", "a green ring", "a cross"]
SEEDS = [7, 8]


class Painter:
    """Draws a grey square at once; notes in a diary, shared by all, what it was asked."""

    def __init__(self, name: str, level: int, render_s: float, diary: list[tuple[str, str, int]]) -> None:
        self.name, self._level, self._render_s, self._diary = name, level, render_s, diary

    def draw(self, request: Mapping[str, Any]) -> Answer:
        self._diary.append((self.name, request["prompt"], request["seed"]))
        picture = DrawnPicture(grey(self._level + request["seed"]), "png", request["seed"], False, False)
        return Answer((picture,), f"{self.name}-model", {}, self._render_s, self._render_s + 0.1)


def answer_with(level: int) -> Answer:
    return Answer((DrawnPicture(grey(level), "png", 0, False, False),), "m", {}, 1.0, 1.0)


@pytest.fixture
def diary() -> list[tuple[str, str, int]]:
    return []


@pytest.fixture
def contenders(diary: list[tuple[str, str, int]]) -> list[Contender]:
    return [
        Contender("production", Painter("production", 50, 0.5, diary), "ml.g5.2xlarge", 1.8),
        Contender("beside", Painter("beside", 100, 1.0, diary)),
    ]


@pytest.fixture(autouse=True)
def clip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """A CLIP that likes bright pictures; it keeps what it was given."""
    seen: list[tuple[Path, str]] = []

    def score(pairs: list[tuple[Path, str]], _evaluator: Path) -> ClipScores:
        seen.extend(pairs)
        from PIL import Image

        levels = [Image.open(path).convert("L").getpixel((0, 0)) for path, _ in pairs]
        return ClipScores(tuple(float(level) / 1000 for level in levels), "c" * 64)  # type: ignore[arg-type]

    monkeypatch.setattr(comparison, "score_pictures", score)
    return seen


def compared(contenders: list[Contender]) -> Comparison:
    return compare(contenders, PROMPTS, SEEDS, {"steps": 4}, lambda: Path("evaluator"))


def test_every_model_gets_the_same_prompts_and_seeds_by_turns(
    contenders: list[Contender], diary: list[tuple[str, str, int]]
) -> None:
    found = compared(contenders)
    asked = [(prompt, seed) for prompt in PROMPTS for seed in SEEDS]
    for standing in found.standings:
        assert [(shot.prompt, shot.seed) for shot in standing.shots] == asked
    warm_up, counted = diary[:2], diary[2:]
    assert {name for name, *_ in warm_up} == {"production", "beside"}
    assert [name for name, *_ in counted[::2]] == ["production", "beside"] * 4, "the first to draw changes"


def test_scores_come_back_to_their_pictures(contenders: list[Contender], clip: list[tuple[Path, str]]) -> None:
    first, second = compared(contenders).standings
    assert [shot.clip_score for shot in first.shots] == pytest.approx([0.057, 0.058] * 4)
    assert (first.clip_score, second.clip_score) == (pytest.approx(0.0575), pytest.approx(0.1075))
    assert [caption for _, caption in clip] == 2 * [prompt for prompt in PROMPTS for _ in SEEDS]
    gap, wins = difference(first, second) or pytest.fail("not scored")
    assert (gap.mean, gap.low, gap.high, wins) == (*[pytest.approx(0.05)] * 3, 8)


def test_an_image_costs_the_instances_time(contenders: list[Contender]) -> None:
    first, second = compared(contenders).standings
    assert first.usd_per_image == pytest.approx(1.8 * 0.5 / 3600)
    assert second.usd_per_image is None
    assert (first.latency_s(0.5), second.latency_s(0.95)) == (pytest.approx(0.6), pytest.approx(1.1))


def test_without_a_clip_the_pictures_are_still_compared(contenders: list[Contender]) -> None:
    def missing() -> Path:
        raise ScoringError("s3://bucket/evaluator/clip/ holds no CLIP")

    found = compare(contenders, PROMPTS, SEEDS, {}, missing)
    assert found.standings[0].clip_score is None
    assert difference(*found.standings) is None
    assert "holds no CLIP" in render(found, {})


def test_the_page_shows_each_pair_and_needs_nothing_else(contenders: list[Contender]) -> None:
    page = render(compared(contenders), {"steps": 4})
    sources = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    expected = [grey(level + seed) for _ in PROMPTS for seed in SEEDS for level in (50, 100)]
    assert [base64.b64decode(source) for source in sources] == expected
    assert "<b>blue</b>" not in page
    assert "a &lt;b&gt;blue&lt;/b&gt; bar" in page
    assert "beside shows more of the prompts than production." in page
    assert "+0.0500 (+0.0500 to +0.0500)" in page
    assert "8 of 8" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_models_that_differ_by_chance_alone_are_not_told_apart() -> None:
    contender = Contender("one", Painter("one", 0, 1.0, []))

    def standing(scores: list[float]) -> Standing:
        shots = tuple(Shot(f"prompt {n}", n, answer_with(n), score) for n, score in enumerate(scores))
        return Standing(contender, shots)

    both = standing([0.2, 0.3, 0.2, 0.3]), standing([0.3, 0.2, 0.31, 0.2])
    gap, wins = difference(*both) or pytest.fail("not scored")
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low < 0 < gap.high
    assert wins == 2


def test_pictures_of_one_prompt_count_once_however_many_seeds_it_has() -> None:
    contender = Contender("one", Painter("one", 0, 1.0, []))

    def standing(score: float) -> Standing:
        return Standing(contender, tuple(Shot("the only prompt", n, answer_with(n), score) for n in range(20)))

    gap, wins = difference(standing(0.2), standing(0.3)) or pytest.fail("not scored")
    assert (gap.low, gap.high, wins) == (None, None, 20)
