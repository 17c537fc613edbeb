"""The table of rank correlations is right where the order is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shapes.captions import every
from shapes.pictures import draw
from tests.end_to_end.metric_order import errors, order


def test_pictures_are_off_by_their_noise(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    samples = []
    for number, caption in enumerate(every()[:3]):
        picture = draw(caption, 64)
        picture[:, :, 0] = np.where(picture[:, :, 0] > 127, picture[:, :, 0] - 30, picture[:, :, 0] + 30)
        file = f"samples/{number}.png"
        Image.fromarray(picture).save(tmp_path / file)
        samples.append({"caption": caption.text(), "file": file})
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    assert errors(tmp_path) == pytest.approx(30 / 3**0.5)


def test_a_metric_in_the_right_order_has_one_and_one_in_the_wrong_order_minus_one() -> None:
    truths = [np.full(9, level) for level in (40.0, 30.0, 20.0, 10.0)]

    def entry(value: float, spread: float = 0.0) -> dict[str, float]:
        return {"value": value, "low": value - spread, "high": value + spread}

    metrics = [
        {"fid": entry(level), "clip_score": entry(level), "kid": entry(level, 50.0), "fid_real": entry(1.0)}
        for level in (4.0, 3.0, 2.0, 1.0)
    ]
    found = order(metrics, truths)
    assert found["fid"] == [1.0, 1.0, 1.0] and found["clip_score"] == [-1.0, -1.0, -1.0]
    value, low, high = found["kid"]
    assert (value, low < 0 < high) == (1.0, True)
    assert "fid_real" not in found
