"""A filter is one class, and a user's own is one file."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pydantic import Field

import params
from params import filters
from params.filters import FILTERS, Filter, TableColumn, with_filters
from params.model import Model
from params.programs import DownloadSettings
from steps.data.causes import LEFT_OUT, Cause, from_message

ROOT = Path(params.__file__).parents[1]
OWN_FILTER = '''
from pydantic import Field

from params.filters import TableColumn, Filter


class Faces(Filter):
    """More faces than allowed, or not counted."""

    cause = "faces"
    columns = (TableColumn("faces", ("faces", "face_count")),)
    max_faces: int = Field(1_000_000, ge=0)
    """Rows with more faces are left out; 1000000: no filter."""

    def keeps(self, faces):
        return faces <= self.max_faces
'''


def test_a_filter_of_ones_own_is_one_file_from_its_setting_to_the_manifest(tmp_path: Path) -> None:
    for room in ("params", "steps"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "params" / "filters" / "faces.py").write_text(OWN_FILTER)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        buffer = io.BytesIO()
        Image.linear_gradient("L").rotate(90 * number).save(buffer, "PNG")
        (pictures / f"{number}.png").write_bytes(buffer.getvalue())
    lines = [{"file_name": f"{number}.png", "text": "a", "face_count": number} for number in range(3)]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))

    command = [sys.executable, "-m", "steps", "download", "--source", "pictures", "--url-table", str(pictures)]
    command += ["--shards-uri", str(tmp_path / "shards"), "--image-size-px", "64", "--processes", "1"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SAGEMAKER_BASE_DIR": str(tmp_path / "ml")}
    run = subprocess.run(
        [*command, "--max-faces", "1"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "ml/processing/output/shards/manifest.json").read_text())
    assert manifest["ledger"]["filtered"] == {"faces": 1} and manifest["ledger"]["kept"] == 2
    parsed = (
        "from params.settings import parse_settings; print(parse_settings('download: {max_faces: 3}', 'x').download)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", parsed], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "max_faces=3" in shown.stdout, shown.stderr


@pytest.mark.parametrize("one", FILTERS)
def test_every_filter_is_documented_and_counted_as_left_out(one: type[Filter]) -> None:
    assert one.__doc__ and one.columns and one.cause in LEFT_OUT and one.cause not in set(Cause)
    assert from_message(one.cause) == one.cause
    assert all(field.description for field in one.model_fields.values())
    assert one.measured or not one.from_settings(DownloadSettings()).is_on


def test_two_filters_with_the_same_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twin(Filter):
        cause = "twin"
        columns = (TableColumn("x"),)
        max_unsafe: float = Field(0.5)

    monkeypatch.setattr(filters, "FILTERS", (*FILTERS, Twin))
    with pytest.raises(TypeError, match="Twin: taken already: max_unsafe"):
        with_filters(Model)


def test_a_filter_may_share_a_setting_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(Filter):
        cause = "small"
        columns = (TableColumn("x"),)
        side_px: int = 7
        factor: float = 2.0

    class Stored(Model):
        side_px: int = 7

    monkeypatch.setattr(filters, "FILTERS", (Small,))
    settings = with_filters(Stored).model_validate({"side_px": 9})
    assert list(type(settings).model_fields) == ["side_px", "factor"]
    assert Small.from_settings(settings) == Small(side_px=9)
