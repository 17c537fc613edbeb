import hashlib
from typing import Any

import pytest

from params.programs import DownloadSettings
from steps.data.causes import FetchError
from steps.data.shards.row_checks import boxes_of, boxes_to_blur, row_checks_columns
from steps.data.tables.url_table import TableSlice

BODY = b"bytes of a picture"


def rows(**others: list[Any]) -> TableSlice:
    return TableSlice(0, 0, ["u"], ["c"], others)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_bytes_are_compared_with_the_hash_that_the_table_has(algorithm: str) -> None:
    settings = DownloadSettings(verify_hash=f"digest={algorithm}")
    assert row_checks_columns(settings) == {"digest": "verify_hash"}
    right = hashlib.new(algorithm, BODY).hexdigest()
    assert boxes_to_blur(settings, rows(digest=[f" {right.upper()}\n"]), 0, BODY) == []
    for wrong in (right[:-1] + "g", "", None, hashlib.new(algorithm, b"").hexdigest()):
        with pytest.raises(FetchError, match="hash_mismatch"):
            boxes_to_blur(settings, rows(digest=[wrong]), 0, BODY)


@pytest.mark.parametrize(
    ("value", "boxes"),
    [
        (None, []),
        ("", []),
        ([], []),
        ([[0.1, 0.2, 0.3, 0.4]], [(0.1, 0.2, 0.3, 0.4)]),
        ("[[-0.1, 0, 1.2, 1]]", [(0.0, 0.0, 1.0, 1.0)]),
    ],
)
def test_boxes_are_lists_or_json(value: object, boxes: list[tuple[float, ...]]) -> None:
    assert boxes_of(value) == boxes
    settings = DownloadSettings(blur_column="faces")
    assert boxes_to_blur(settings, rows(faces=[value]), 0, BODY) == boxes


@pytest.mark.parametrize(
    "value", [7, "x", "{}", [0.1, 0.2, 0.3, 0.4], [[0.1, 0.2]], [[0, 0, float("nan"), 1]], [[0.5, 0, 0.1, 1]]]
)
def test_what_are_no_boxes_keeps_the_picture_out(value: object) -> None:
    with pytest.raises(FetchError, match="bad_boxes"):
        boxes_to_blur(DownloadSettings(blur_column="faces"), rows(faces=[value]), 0, BODY)


def test_without_the_settings_nothing_is_looked_at() -> None:
    assert row_checks_columns(DownloadSettings()) == {}
    assert boxes_to_blur(DownloadSettings(), rows(), 0, BODY) == []
