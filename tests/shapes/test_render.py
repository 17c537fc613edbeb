import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, UnidentifiedImageError

from shapes import captions, faults, pictures, render

BASE_URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def request_of_100(tmp_path_factory: pytest.TempPathFactory) -> render.Request:
    folder = tmp_path_factory.mktemp("web")
    request = render.Request(folder, folder / "urls.parquet", BASE_URL, rows=100, seed=3)
    assert render.render(request)
    return request


def rows_of(request: render.Request) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(request.table).to_pylist()
    return table


def test_every_row_lists_a_caption_of_the_grid_and_the_address_of_its_picture(request_of_100: render.Request) -> None:
    rows = rows_of(request_of_100)
    grid = captions.every()
    assert len(rows) == 100
    for row in rows:
        part, name = row["url"].removeprefix(f"{BASE_URL}/").split("/")
        assert grid[int(name[:5])].text() == row["caption"]
        assert part in (*faults.NAMES, faults.PICTURES)


def test_faults_json_counts_what_the_table_holds(request_of_100: render.Request) -> None:
    told = json.loads(request_of_100.table.with_name("faults.json").read_text())
    parts = [row["url"].split("/")[3] for row in rows_of(request_of_100)]
    assert {name: fault["rows"] for name, fault in told["faults"].items()} == {n: parts.count(n) for n in faults.NAMES}
    lost = sum(parts.count(fault.name) for fault in faults.FAULTS if not fault.kept)
    assert told["kept_rows"] == 100 - lost
    assert all(parts.count(name) >= 1 for name in faults.NAMES)


def test_rows_that_become_samples_have_a_picture_each_except_the_copies(request_of_100: render.Request) -> None:
    kept = {fault.name for fault in faults.FAULTS if fault.kept} | {faults.PICTURES}
    urls = [row["url"].split("/")[3:] for row in rows_of(request_of_100)]
    own = [name for part, name in urls if part in kept and part != "copy"]
    plain = [name for part, name in urls if part == faults.PICTURES]
    assert len(own) == len(set(own))
    assert {name for part, name in urls if part == "copy"} <= set(plain)


def test_the_default_table_holds_the_whole_grid_and_two_per_cent_of_faults() -> None:
    rows = render.plan(4000, 0)
    kept = {fault.name for fault in faults.FAULTS if fault.kept} | {faults.PICTURES}
    assert len({row.number for row in rows if row.part in kept}) == 3920
    assert 0.015 < sum(row.part in faults.NAMES for row in rows) / 4000 < 0.025


def test_pictures_show_their_captions_in_both_formats(request_of_100: render.Request) -> None:
    grid = captions.every()
    suffixes = set()
    for file in sorted((request_of_100.folder / "pictures").iterdir()):
        shown = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"), float)
        drawn = pictures.draw(grid[int(file.name[:5])]).astype(float)
        assert shown.shape == (128, 128, 3)
        assert np.abs(shown - drawn).mean() < 2.0
        suffixes.add(file.suffix)
    assert suffixes == {".jpg", ".png"}


def test_pictures_are_in_turns_square_wide_and_tall_and_listed_at_their_size(tmp_path: Path) -> None:
    request = render.Request(tmp_path, tmp_path / "urls.parquet", BASE_URL, rows=100, seed=3, max_aspect_ratio=1.5)
    render.render(request)
    sizes = set()
    for row in rows_of(request):
        file = request.folder.joinpath(*row["url"].split("/")[3:])
        if file.exists() and file.parent.name != "corrupt":
            with Image.open(file) as picture:
                assert picture.size == (row["width"], row["height"])
            sizes.add((row["width"], row["height"]))
    assert sizes == {(128, 128), (192, 128), (128, 192), (24, 36)}


def test_corrupt_files_do_not_decode_and_small_ones_are_small(request_of_100: render.Request) -> None:
    corrupt = list((request_of_100.folder / "corrupt").iterdir())
    small = list((request_of_100.folder / "small").iterdir())
    assert corrupt
    assert small
    for file in corrupt:
        with pytest.raises((UnidentifiedImageError, OSError)):
            Image.open(io.BytesIO(file.read_bytes())).load()
    assert {Image.open(io.BytesIO(file.read_bytes())).size for file in small} == {(24, 24)}


def test_a_second_call_changes_nothing(request_of_100: render.Request) -> None:
    before = {file: file.stat().st_mtime_ns for file in request_of_100.folder.rglob("*")}
    assert not render.render(request_of_100)
    assert {file: file.stat().st_mtime_ns for file in request_of_100.folder.rglob("*")} == before


def test_a_lost_picture_is_drawn_again_and_no_other(tmp_path: Path) -> None:
    request = render.Request(tmp_path, tmp_path / "urls.parquet", BASE_URL, rows=20)
    render.render(request)
    first, second, *_ = sorted((tmp_path / "pictures").iterdir())
    body, untouched = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    assert render.render(request)
    assert first.read_bytes() == body
    assert second.stat().st_mtime_ns == untouched


def test_another_port_rewrites_the_table_but_no_picture(tmp_path: Path) -> None:
    render.render(render.Request(tmp_path, tmp_path / "urls.parquet", BASE_URL, rows=20))
    drawn = {file: file.stat().st_mtime_ns for file in (tmp_path / "pictures").iterdir()}
    moved = render.Request(tmp_path, tmp_path / "urls.parquet", "http://127.0.0.1:9", rows=20)
    assert render.render(moved)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "pictures").iterdir()} == drawn
    assert all(row["url"].startswith("http://127.0.0.1:9/") for row in rows_of(moved))


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    tables = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        request = render.Request(tmp_path / folder, tmp_path / folder / "urls.parquet", BASE_URL, rows=20, seed=seed)
        render.render(request)
        tables.append(request.table.read_bytes())
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.parametrize("rows", [0, 15, 4001])
def test_a_number_of_rows_that_the_grid_cannot_fill_is_refused_by_name(tmp_path: Path, rows: int) -> None:
    with pytest.raises(ValueError, match=f"rows: {rows} is not between 16 and 4000"):
        render.Request(tmp_path, tmp_path / "urls.parquet", BASE_URL, rows=rows)
