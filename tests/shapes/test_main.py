import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shapes.__main__ import main


def test_render_says_whether_it_had_anything_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "urls.parquet"
    command = ["render", "--folder", str(tmp_path), "--table", str(table), "--base-url", "http://h:1/", "--rows", "20"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"wrote {table} (20 rows)\n"
    assert main(command) == 0
    assert capsys.readouterr().out == f"complete already: {table} (20 rows)\n"
    assert all(url.startswith("http://h:1/") and "//" not in url[7:] for url in pq.read_table(table)["url"].to_pylist())


@pytest.mark.parametrize(("words", "told"), [
    (["render", "--folder", "f", "--table", "t", "--base-url", "u", "--rows", "5"], "rows: 5"),
    (["render", "--folder", "f", "--table", "t", "--base-url", "u", "--row", "5"], "--row"),
    (["draw"], "draw"),
])  # fmt: skip
def test_a_bad_argument_ends_with_one_line_that_names_it(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_serving_and_rendering_do_not_import_torch() -> None:
    code = "import sys, shapes.__main__, shapes.web, shapes.render; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_shape_that_no_table_has_is_drawn_with_its_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shapes.captions.COLOURS", ("red", "blue"))
    assert main(["new-shape", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"wrote 20 pictures into {tmp_path}\n"
    texts = {path.read_text() for path in tmp_path.glob("*.txt")}
    assert len(texts) == 20 and "a small red moon at the top on a blue background" in texts
    assert all(path.with_suffix(".png").read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.txt"))
