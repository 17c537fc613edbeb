"""Scores from the program in a process of its own, and where its CLIP comes from."""

from pathlib import Path

import pytest
from PIL import Image

from params.settings import Settings, load_settings
from pipeline_definition.prompting.clip_scores import ScoringError, evaluator_folder, score_pictures
from shapes.captions import parse
from shapes.pictures import draw
from tests.pipeline_definition.fake_aws import FakeTarget, fake_s3

EVALUATOR_DIR = Path("shapes/models/evaluator")
CIRCLE = "a small red circle at the top on a blue background"
STAR = "a large green star on the left on a white background"


def test_a_picture_of_its_caption_scores_far_above_one_of_another(tmp_path: Path) -> None:
    paths = {caption: tmp_path / f"{number}.png" for number, caption in enumerate((CIRCLE, STAR))}
    for caption, path in paths.items():
        Image.fromarray(draw(parse(caption), 64)).save(path)
    pairs = [(paths[shown], said) for shown in (CIRCLE, STAR) for said in (CIRCLE, STAR)]
    result = score_pictures(pairs, EVALUATOR_DIR)
    circle, circle_as_star, star_as_circle, star = result.scores
    assert min(circle, star) > 0.5 + max(circle_as_star, star_as_circle)
    assert len(result.clip) == 64


def test_what_the_program_says_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"pictures cannot be scored: .*missing\.png"):
        score_pictures([(tmp_path / "missing.png", CIRCLE)], EVALUATOR_DIR)


def test_a_local_set_brings_its_own_evaluator() -> None:
    settings = load_settings(Path("params/local.yaml"))
    assert (evaluator_folder(settings, FakeTarget(), Path("unused")) / "clip" / "config.json").is_file()


def test_another_set_has_its_evaluator_fetched_once(tmp_path: Path) -> None:
    address = Settings().data.evaluator_uri
    objects = {f"{address}/clip/config.json": b"{}", f"{address}/clip/model.safetensors": b"weights"}
    folder = evaluator_folder(Settings(), FakeTarget(answers={"s3": fake_s3(objects)}), tmp_path)
    assert (folder / "clip" / "model.safetensors").read_bytes() == b"weights"
    objects[f"{address}/clip/config.json"] = b"changed"
    again = evaluator_folder(Settings(), FakeTarget(answers={"s3": fake_s3(objects)}), tmp_path)
    assert (again / "clip" / "config.json").read_bytes() == b"{}"


def test_an_evaluator_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"evaluator/clip/ holds no CLIP"):
        evaluator_folder(Settings(), FakeTarget(answers={"s3": fake_s3({})}), tmp_path)
