"""What a row says of its picture beside the address, as img2dataset's --verify_hash and --bbox_col: hash, boxes."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from params.programs import DownloadSettings
from steps.data.causes import Cause, FetchError
from steps.data.tables.url_table import TableSlice

Box = tuple[float, float, float, float]


def row_checks_columns(settings: DownloadSettings) -> dict[str, str]:
    """Return the columns that are needed, and the settings that name them."""
    columns = {settings.verify_hash.rpartition("=")[0]: "verify_hash", settings.blur_column: "blur_column"}
    return {column: setting for column, setting in columns.items() if column}


def boxes_to_blur(settings: DownloadSettings, rows: TableSlice, row: int, body: bytes) -> list[Box]:
    """Return the boxes of a body. Raises FetchError where its bytes are not the row's, or the boxes are none."""
    column, _, algorithm = settings.verify_hash.rpartition("=")
    if column:
        wanted = str(rows.others[column][row] or "").strip().lower()
        if hashlib.new(algorithm, body, usedforsecurity=False).hexdigest() != wanted:
            raise FetchError(Cause.HASH_MISMATCH)
    try:
        return boxes_of(rows.others[settings.blur_column][row]) if settings.blur_column else []
    except (TypeError, ValueError):
        raise FetchError(Cause.BAD_BOXES) from None


def boxes_of(value: Any) -> list[Box]:
    """Return boxes: from a list, or from a text that is one in JSON; no value is no box.

    Raises TypeError or ValueError for anything that is not four numbers from 0 to 1 each, the larger ones last.
    """
    if isinstance(value, (str, bytes)):
        value = json.loads(value) if value.strip() else None
    if value is not None and not isinstance(value, list):
        raise TypeError("no list")
    boxes = []
    for box in value or []:
        left, top, right, bottom = (float(number) for number in box)
        if not all(math.isfinite(number) for number in (left, top, right, bottom)):
            raise ValueError("not finite")
        # A face at the edge may reach beyond it.
        left, top, right, bottom = (min(max(number, 0.0), 1.0) for number in (left, top, right, bottom))
        if not (left < right and top < bottom):
            raise ValueError("no area")
        boxes.append((left, top, right, bottom))
    return boxes
