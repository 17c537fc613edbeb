"""The door of the url table: whatever a column holds, what comes out is text, numbers, or lists of texts.

Values become text here and nowhere else. What is no text (bytes that are not UTF-8, half a surrogate pair, a zero, an
object) is marked, so that it costs its row and nothing else.
"""

import html
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steps.errors import StepError

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

WHY_NO_TEXT: Final = "not UTF-8, half a surrogate pair, or a zero"
NOT_TEXT: Final = b"\xff"
"""No UTF-8: how a value that is no text reaches the door."""
ZERO: Final = "\0"
"""No character of a text: what holds it is UTF-16 that was taken for UTF-8, or data."""
_BYTES: Final = (pa.binary(), pa.large_binary(), pa.binary_view())
_TEXTS: Final = (pa.string(), pa.large_string(), pa.string_view(), *_BYTES, pa.null())
_LISTS: Final = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
# Without the semicolon an entity is a guess: `?a=1&copy=2` is an address, not a copyright sign.
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BYTE_ORDER_MARK: Final = "\ufeff"
# Neither control, format, unassigned, white space, an accent on nothing, a filler nor the mark of a lost character.
_VISIBLE: Final = r"[^\pC\pZ\pM\x{115F}\x{1160}\x{2800}\x{3164}\x{FFA0}\x{FFFD}]"


class ReadColumn(NamedTuple):
    """A column behind the door."""

    values: Any
    """pyarrow array: strings, lists of strings, or numbers."""
    lost: Mask
    """Rows whose value is no text."""


def is_text(kind: Any) -> bool:
    """Return whether a pyarrow type holds text, or bytes that may be text."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return kind in _TEXTS or bool(pa.types.is_fixed_size_binary(kind))


def is_list(kind: Any) -> bool:
    """Return whether a pyarrow type is a list of some sort."""
    return isinstance(kind, _LISTS)


def require_text(path: str, column: str, kind: Any, setting: str) -> None:
    """Raise StepError unless a column can be what a setting needs: text or, of captions, a list of texts."""
    lists = setting == "caption_column"
    if is_text(kind) or (lists and is_list(kind) and is_text(kind.value_type)):
        return
    raise StepError(
        f"url_table: {path}: column {column!r} holds {kind}, and text{' or lists of it' if lists else ''} is needed; "
        f"name another as download.{setting}, or write it as text"
    )


def through(column: Any) -> ReadColumn:
    """Return a column of a table as texts, lists of texts, or numbers."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_list(array.type) and is_text(array.type.value_type):
        return _lists(array)
    if is_text(array.type):
        return _texts(array)
    return ReadColumn(_numbers(array), np.zeros(len(array), np.bool_))


def _texts(array: Any) -> ReadColumn:
    content = array.cast(pa.binary())
    if not len(rows_with(content, ZERO.encode())):
        with suppress(pa.ArrowInvalid):
            return ReadColumn(content.cast(pa.string()), np.zeros(len(array), np.bool_))
    values = [_decoded(value) for value in content.to_pylist()]
    return _without_lost(values, [value is NOT_TEXT for value in values], pa.string())


def _decoded(value: bytes | None) -> Any:
    try:
        text = None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_TEXT
    return NOT_TEXT if text and ZERO in text else text


def _lists(array: Any) -> ReadColumn:
    rows = array.cast(pa.list_(pa.binary())).to_pylist()
    decoded = [None if row is None else [_decoded(value) for value in row] for row in rows]
    return _without_lost(decoded, [row is not None and NOT_TEXT in row for row in decoded], pa.list_(pa.string()))


def _without_lost(values: Sequence[Any], lost: Sequence[bool], kind: Any) -> ReadColumn:
    kept = [None if is_lost else value for value, is_lost in zip(values, lost, strict=True)]
    return ReadColumn(pa.array(kept, kind), np.array(lost, np.bool_))


def _numbers(array: Any) -> Any:
    plain = pa.types.is_decimal(array.type) or pa.types.is_boolean(array.type)
    return array.cast(pa.float64(), safe=False) if plain else array


def from_values(values: Sequence[Any]) -> Any:
    """Return values of JSON as a pyarrow array for `through`: numbers where all are, else bytes or lists of bytes."""
    known = [value for value in values if value is not None]
    # Lists of lists of numbers are boxes in pictures.
    if all(map(_is_number, known)) or all(isinstance(v, list) and all(isinstance(of, list) for of in v) for v in known):
        with suppress(pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return pa.array(values)
    if any(isinstance(value, list) for value in values):
        rows = [value if value is None or isinstance(value, list) else [value] for value in values]
        return pa.array([row if row is None else list(map(_encoded, row)) for row in rows], pa.list_(pa.binary()))
    return pa.array([_encoded(value) for value in values], pa.binary())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _encoded(value: Any) -> bytes | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        # Half a surrogate pair becomes bytes that are no UTF-8.
        return value.encode("utf-8", "surrogatepass")
    return repr(value).encode() if _is_number(value) and abs(value) < 1e300 else NOT_TEXT


def is_read(value: Any) -> bool:
    """Return whether a value of JSON, but for lists, is text, a number or nothing."""
    return _decoded(_encoded(value)) is not NOT_TEXT


def only_ones(column: ReadColumn) -> ReadColumn:
    """Return lists of one text as that text; longer ones are lost."""
    lengths = pc.fill_null(pc.list_value_length(column.values), 0)
    several = pc.greater(lengths, 1).to_numpy(zero_copy_only=False)
    ones = pc.if_else(pc.equal(lengths, 1), column.values, None)
    values = pa.array([row and row[0] for row in ones.to_pylist()], pa.string())
    return ReadColumn(values, column.lost | several)


def replaced(texts: Any, replace: Callable[[str], str], byte: bytes) -> Any:
    """Return a pyarrow array of strings with those replaced in which a byte stands."""
    rows = rows_with(texts, byte)
    if not len(rows):
        return texts
    is_replaced = np.zeros(len(texts), np.bool_)
    is_replaced[rows] = True
    values = [text and replace(text) for text in texts.take(pa.array(rows)).to_pylist()]
    return pc.replace_with_mask(texts, pa.array(is_replaced), pa.array(values, pa.string()))


def rows_with(texts: Any, byte: bytes) -> Rows:
    """Return the rows, ascending, of a pyarrow array of strings or binary in which a byte stands."""
    _, places, content = texts.buffers()
    if not len(texts) or content is None:
        return np.empty(0, np.int64)
    offsets = np.frombuffer(places, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    between = memoryview(content)[offsets[0] : offsets[-1]]
    # Most often there is none, and a search for one is faster than a mask of all.
    if byte not in between.tobytes():
        return np.empty(0, np.int64)
    found = np.flatnonzero(np.frombuffer(between, np.uint8) == byte[0]) + offsets[0]
    return np.unique(np.searchsorted(offsets, found, side="right") - 1)


def clean(texts: Any) -> Any:
    """Return captions, a pyarrow array of strings, with entities of HTML undone and trimmed; blank ones are null."""
    texts = replaced(texts, lambda text: _ENTITY.sub(lambda one: html.unescape(one.group()), text), b"&")
    trimmed = pc.utf8_trim_whitespace(pc.utf8_ltrim(texts, characters=_BYTE_ORDER_MARK))
    # Most begin with a visible character of ASCII: the others are searched for one.
    is_other = pc.invert(pc.and_(pc.greater_equal(trimmed, "!"), pc.less(trimmed, "\x7f")))
    others = trimmed.filter(is_other)
    if not len(others):
        return trimmed
    visible = pc.if_else(pc.match_substring_regex(others, _VISIBLE), others, None)
    return pc.replace_with_mask(trimmed, pc.fill_null(is_other, False), visible)
