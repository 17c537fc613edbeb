from pathlib import Path

import pytest

from steps.errors import StepError
from steps.serving.moderation import Moderation
from tests.steps.serving.conftest import Serve
from tests.steps.serving.fakes import FakeRenderer


@pytest.fixture(name="patterns")
def patterns_fixture(tmp_path: Path) -> str:
    file = tmp_path / "refused.txt"
    file.write_text("# two words\n\\bnude\\b\n\nnamed? person\n", encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("prompt", "refused"),
    [("a NUDE figure", True), ("a denuded hill", False), ("a name person", True), ("two words", False), ("", False)],
)
def test_a_prompt_in_which_a_pattern_is_found_is_refused(patterns: str, prompt: str, refused: bool) -> None:
    assert Moderation(patterns).refuses(["a cat", prompt]) is refused


def test_without_a_file_nothing_is_refused() -> None:
    assert not Moderation("").refuses(["nude"])


def test_a_line_that_is_no_pattern_is_named(tmp_path: Path) -> None:
    (tmp_path / "refused.txt").write_text("fine\n(open\n")
    with pytest.raises(StepError, match="line 2"):
        Moderation(str(tmp_path / "refused.txt"))
    with pytest.raises(StepError, match="No such file"):
        Moderation(str(tmp_path / "none.txt"))


def test_a_refused_prompt_is_not_drawn_counted_and_not_repeated(serve: Serve, patterns: str) -> None:
    drawer = FakeRenderer()
    with serve(drawer.load, refused_prompts=patterns) as (client, _):  # type: ignore[arg-type]
        answer = client.post("/invocations", json={"prompts": ["a cat", "a nude"]})
        allowed = client.post("/invocations", json={"prompt": "a cat", "negative_prompt": "nude"})
        metrics = client.get("/metrics").text
    assert (answer.status_code, allowed.status_code, len(drawer.batches)) == (422, 200, 1)
    assert answer.json()["error"]["fields"] == [{"field": "prompt", "message": "this endpoint does not draw that"}]
    assert "nude" not in answer.text
    assert "serving_refused_prompts_total 1.0" in metrics
