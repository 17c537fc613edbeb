"""`sd-pipeline prompt` as a person types it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline_definition.cli import app
from pipeline_definition.commands.options import CommandContext
from pipeline_definition.commands.prompt import _samplers
from tests.pipeline_definition.prompting.conftest import DrawingServer, grey, refusal


def prompt(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["prompt", "a red circle", "--params", "params/local.yaml", *arguments])


@pytest.mark.parametrize(("name", "form"), [("a.png", "png"), ("a.JPG", "jpeg"), ("deep/er/a.webp", "webp")])
def test_the_picture_is_written_in_the_form_of_its_name(
    drawing: DrawingServer, tmp_path: Path, name: str, form: str
) -> None:
    path = tmp_path / name
    result = prompt("--endpoint", drawing.url, "--out", str(path), "--seed", "9", "--steps", "2", "--negative", "blue")
    assert result.exit_code == 0, result.output
    assert path.read_bytes() == grey(9, form)
    assert "seed 9" in result.output
    asked = {"prompt": "a red circle", "negative_prompt": "blue", "seed": 9, "steps": 2, "format": form}
    assert drawing.requests == [asked]


@pytest.mark.parametrize(("name", "studied"), [("local", "dpm++,ddim,euler"), ("local_flow", "dpm++")])
def test_a_study_draws_with_the_samplers_that_the_sets_model_has(name: str, studied: str) -> None:
    assert _samplers(CommandContext(Path(f"params/{name}.yaml")), of_flow="dpm++") == studied


def test_several_pictures_get_names_of_their_own(drawing: DrawingServer, tmp_path: Path) -> None:
    prompt("--endpoint", drawing.url, "--out", str(tmp_path / "a.png"), "--seed", "1", "--images", "3")
    assert [(tmp_path / f"a{end}.png").read_bytes() for end in ("", "-2", "-3")] == [grey(1), grey(2), grey(3)]


def test_a_pipe_gets_no_picture_unless_it_is_asked_for(drawing: DrawingServer, tmp_path: Path) -> None:
    arguments = ("--endpoint", drawing.url, "--out", str(tmp_path / "a.png"))
    assert "▀" not in prompt(*arguments).output
    assert "▀" in prompt(*arguments, "--show", "blocks").output


def test_a_file_that_is_no_picture_is_refused_before_anything_is_asked(drawing: DrawingServer) -> None:
    result = prompt("--endpoint", drawing.url, "--out", "a.gif")
    assert (result.exit_code, drawing.requests) == (2, [])
    assert "--out a.gif" in result.output


def test_what_the_endpoint_refuses_is_one_line(drawing: DrawingServer, tmp_path: Path) -> None:
    drawing.refusals = [refusal(422, "steps: too many")]
    result = prompt("--endpoint", drawing.url, "--out", str(tmp_path / "a.png"))
    assert (result.exit_code, "steps: too many" in result.output) == (1, True)
    assert not (tmp_path / "a.png").exists()


def test_a_prompt_that_was_cut_is_said(drawing: DrawingServer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["prompt", "a" * 101, "--endpoint", drawing.url, "--out", str(tmp_path / "a.png")])
    assert "did not read the end" in result.output
