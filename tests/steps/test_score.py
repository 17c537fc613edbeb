"""Pictures and captions to scores, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steps.__main__ import main
from tests.steps.evaluation.conftest import CAPTIONS, picture
from tests.steps.evaluation.conftest import evaluator_dir_fixture as evaluator_dir_fixture
from tests.steps.evaluation.conftest import tokenizer_fixture as tokenizer_fixture
from tests.steps.evaluation.test_clip_scorer import PICTURES, cosines_by_hand


def write_pairs(folder: Path, pairs: list[tuple[str, str]]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"picture": name, "caption": caption}) for name, caption in pairs))
    return path


def score(pairs: Path, evaluator_dir: Path) -> int:
    out = str(pairs.parent / "scores.json")
    return main(["score", "--pictures", str(pairs), "--evaluator", str(evaluator_dir), "--scores", out])


def test_each_picture_gets_its_cosine_in_the_order_of_the_lines(evaluator_dir: Path, tmp_path: Path) -> None:
    for row, pixels in enumerate(PICTURES):
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
    # One of another size between them: batches hold one size, the order stays.
    picture(99, 24).save(tmp_path / "other.png")
    names = [f"{row}.png" for row in range(len(PICTURES))]
    names.insert(4, "other.png")
    captions = [CAPTIONS[row] for row in range(len(names))]
    assert score(write_pairs(tmp_path, list(zip(names, captions, strict=True))), evaluator_dir) == 0
    result = json.loads((tmp_path / "scores.json").read_text())
    own = [captions[row] for row in range(len(names)) if row != 4]
    expected = cosines_by_hand(evaluator_dir / "clip", own)
    assert np.delete(result["scores"], 4) == pytest.approx(expected, abs=1e-5)
    assert len(result["clip"]) == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "names no pictures"), ('{"picture": "a.png"}', "pairs.jsonl:1"), ("[]", "pairs.jsonl:1")],
)
def test_a_list_that_is_none_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "pairs.jsonl").write_text(text)
    assert score(tmp_path / "pairs.jsonl", tmp_path) == 1
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_named(
    evaluator_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert score(write_pairs(tmp_path, [("a.png", "x")]), evaluator_dir) == 1
    assert "a.png" in capsys.readouterr().err
    assert not (tmp_path / "scores.json").exists()
