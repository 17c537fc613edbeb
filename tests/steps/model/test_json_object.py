from pathlib import Path

import pytest

from steps.errors import StepError
from steps.model.json_object import read_object


def test_an_object_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"in_channels": 4}')
    assert read_object(path) == {"in_channels": 4}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "damaged: not a JSON object"),
        (b"{", "damaged: Expecting property name"),
        (b"\xff\xfe", "damaged: 'utf-8' codec"),
        (b"[" * 100_000, "damaged: maximum recursion depth"),
    ],
)
def test_anything_else_is_refused_with_the_file_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(StepError, match=rf"config\.json: {reason}"):
        read_object(path)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        StepError, match=r"config\.json: cannot be read \(.*No such file.*\); the folder must be as diffusers saves it"
    ):
        read_object(tmp_path / "config.json")
