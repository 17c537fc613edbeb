"""The FID-CLIP curve is drawn from its points, and the same points give the same file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steps.evaluation.report import write_guidance_curve


def entry(value: float, reach: float) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


POINTS: list[dict[str, Any]] = [
    {"guidance_scale": scale, "pictures": 64, "fid": entry(fid, 1.0), "clip_score": entry(clip, 0.01)}
    for scale, fid, clip in ((1.5, 20.0, 0.24), (3.0, 12.0, 0.28), (8.0, 16.0, 0.31))
]


def drawn(folder: Path, marked_scale: float = 3.0, points: list[dict[str, Any]] = POINTS) -> bytes:
    write_guidance_curve(folder, points, marked_scale)
    return (folder / "guidance_curve.png").read_bytes()


def test_the_same_points_give_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    first = drawn(tmp_path)
    assert drawn(tmp_path) == first
    assert drawn(tmp_path, marked_scale=8.0) != first
    assert drawn(tmp_path, points=POINTS[:2]) != first


def test_curve_and_marked_point_have_their_colours(tmp_path: Path) -> None:
    drawn(tmp_path)
    with Image.open(tmp_path / "guidance_curve.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour, fewest in (((0x3B, 0x6F, 0xB6), 500), ((0xC2, 0x41, 0x0C), 50)):
        assert (np.abs(pixels - colour).sum(-1) < 12).sum() > fewest


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_points_leave_no_file(tmp_path: Path, count: int) -> None:
    drawn(tmp_path)
    write_guidance_curve(tmp_path, POINTS[:count], 3.0)
    assert not list(tmp_path.iterdir())
