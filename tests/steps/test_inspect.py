import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline_definition.cli import app
from steps.errors import StepError
from steps.inspect import main
from steps.serving.notary import Notary, digest
from steps.serving.watermark import mark
from tests.steps.serving.conftest import ARGUMENTS


def written(path: Path, signed: bool, marked: bool) -> Path:
    image, file = Image.new("RGB", (64, 64), (90, 120, 200)), io.BytesIO()
    (mark(image) if marked else image).save(file, "PNG")
    content = file.getvalue()
    if signed:
        content = Notary(ARGUMENTS).sign(content, "png", "arn:1", {"seed": 7, "prompt_sha256": digest("a dot")})
    path.write_bytes(content)
    return path


def test_both_marks_are_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "a.png", True, True)
    assert main(["--file", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest"]["state"] == "Valid"
    assert found["manifest"]["generation"] == {"model": "arn:1", "seed": 7, "prompt_sha256": digest("a dot")}
    assert found["watermark"]["found"] is True


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(20)])
def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(StepError, match="no picture in PNG, JPEG or WebP"):
        main(["--file", str(tmp_path / "a.png")])


def test_the_command_says_model_seed_and_whether_the_prompt_is_the_one(tmp_path: Path) -> None:
    file = written(tmp_path / "a.png", True, True)
    told = CliRunner().invoke(app, ["picture", "inspect", str(file), "--prompt", "a dot"])
    assert told.exit_code == 0, told.output
    for text in ("Valid", "arn:1", "seed", digest("a dot"), "found, 3", "drawn from this prompt True"):
        assert text in told.output


def test_a_picture_without_any_mark_ends_with_status_1(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["picture", "inspect", str(written(tmp_path / "a.png", False, False))])
    assert (told.exit_code, told.output.split()[:4]) == (1, ["manifest", "none", "watermark", "none,"])
