"""What a row says of its picture beside the address, as img2dataset's --verify_hash and --bbox_col: hash, boxes."""

import hashlib
import json
from typing import Annotated, Any, Final

from pydantic import AfterValidator, FiniteFloat, TypeAdapter

from params.programs import DownloadSettings
from steps.data.causes import Cause, FetchError
from steps.data.tables.url_table import TableSlice

Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


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
    except ValueError:
        raise FetchError(Cause.BAD_BOXES) from None


def _clipped(box: Box) -> Box:
    # A face at the edge may reach beyond it.
    left, top, right, bottom = (min(max(number, 0.0), 1.0) for number in box)
    if not (left < right and top < bottom):
        raise ValueError("no area")
    return left, top, right, bottom


_BOXES: Final = TypeAdapter(list[Annotated[Box, AfterValidator(_clipped)]])


def boxes_of(value: Any) -> list[Box]:
    """Return boxes of a list, or of a text that is one in JSON; no value is no box. Raises ValueError for others."""
    if isinstance(value, (str, bytes)):
        value = json.loads(value) if value.strip() else None
    return _BOXES.validate_python([] if value is None else value)
