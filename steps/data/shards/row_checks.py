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


class RowChecks:
    """Compares bodies with what their rows say."""

    def __init__(self, settings: DownloadSettings) -> None:
        self._hash_column, _, self._algorithm = settings.verify_hash.rpartition("=")
        self._blur_column = settings.blur_column

    def check(self, rows: TableSlice, row: int, body: bytes) -> list[Box]:
        """Return the boxes to be blurred. Raises FetchError where the bytes are others, or the boxes are none."""
        if self._hash_column:
            wanted = str(rows.others[self._hash_column][row] or "").strip().lower()
            if hashlib.new(self._algorithm, body, usedforsecurity=False).hexdigest() != wanted:
                raise FetchError(Cause.HASH_MISMATCH)
        if not self._blur_column:
            return []
        try:
            return boxes_of(rows.others[self._blur_column][row])
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
