"""A table beside a module is found by the module's name, or by its own."""

from pathlib import Path

import pytest

from params.tables import table_beside


def test_a_table_has_the_modules_name_unless_another_is_given(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text("a: b")
    (tmp_path / "others.yaml").write_text("[größer]", encoding="utf-8")
    module = str(tmp_path / "words.py")
    assert (table_beside(module), table_beside(module, "others")) == ({"a": "b"}, ["größer"])
    with pytest.raises(FileNotFoundError):
        table_beside(module, "none")
