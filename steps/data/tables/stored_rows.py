"""The table of pictures that are stored already: an address and a caption for each, and what else is known of them.

Holds its rows in memory. Columns get a type when they are asked for, so that nobody's column costs anything.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import fsspec
import pyarrow as pa

from params.programs import DownloadSettings
from steps.data.causes import Cause
from steps.data.tables.row_files import BATCH_ROWS, CAPTION, LOST, URL, Oddities, caption_keys, is_debris
from steps.data.tables.text_column import WHY_NO_TEXT, from_values, is_read
from steps.errors import StepError

Row = dict[str, Any]

MAX_TEXT_BYTES: Final = 1 << 20
"""Of a caption, its facts, or a header of a tar: more is nothing that a sample has."""


class StoredRows:
    """Rows that lie in memory."""

    def __init__(
        self,
        uri: str,
        rows: list[Row],
        settings: DownloadSettings,
        oddities: Oddities,
        where: str,
        sizes: Mapping[str, int],
        facts: str,
    ) -> None:
        """Take rows, known by the sizes of their files, by name, and by facts about them as JSON.

        `where` says where captions were looked for. Raises StepError, with the first thing that could not be read,
        where no row has a caption that is text.
        """
        _require_captions(uri, rows, settings, oddities, where)
        self._rows, self.rows, self.oddities = rows, len(rows), oddities
        # Pictures that change without a trace of these go unnoticed.
        traces = [sizes, hashlib.sha256(facts.encode()).hexdigest()]
        self.digest = hashlib.sha256(json.dumps(traces, sort_keys=True).encode()).hexdigest()
        others = {name for row in rows for name in row} - {URL, CAPTION, LOST}
        self.names: tuple[str, ...] = (URL, CAPTION, *sorted(others))

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns, and LOST."""
        # Over all rows: what is a number in one batch and a text in the next would be two columns.
        arrays: dict[str, Any] = {name: from_values([row.get(name) for row in self._rows]) for name in columns}
        arrays[LOST] = pa.array([row.get(LOST) for row in self._rows], pa.string())
        yield from pa.table(arrays).to_batches(BATCH_ROWS)


def facts_of(row: Mapping[str, Any], settings: DownloadSettings) -> Row:
    """Return what an object says of a picture: its caption or list of them, numbers and texts."""
    plain = {name: value for name, value in row.items() if isinstance(value, (str, int, float))}
    own = {name: value for name, value in plain.items() if name not in ("text", CAPTION, URL, LOST)}
    for key in caption_keys(settings):
        value = row.get(key)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            is_short = isinstance(value, str) or abs(value) < 1e300
            return {**own, CAPTION: str(value) if is_short else "\ud800"}
        if isinstance(value, list) and value:
            return {**own, CAPTION: value}
    return own


def is_blank(caption: Any) -> bool:
    """Return whether metadata say no caption, so that a file beside the picture counts."""
    return not (caption.strip() if isinstance(caption, str) else caption)


def is_well_formed(caption: Any) -> bool:
    """Return whether a caption, or each of a list, becomes text: half a surrogate pair stands for what is none."""
    return all(map(is_read, caption if isinstance(caption, list) else [caption]))


def caption_in(content: bytes, settings: DownloadSettings) -> str | list[str]:
    """Return what a caption file says; bytes that are no UTF-8 become surrogates, and so does what is too long."""
    if len(content) > MAX_TEXT_BYTES:
        return "\ud800"
    text = content.decode("utf-8", "surrogateescape").strip()
    return text.split("\n") if settings.caption_lines else text


def _require_captions(
    uri: str, rows: Sequence[Row], settings: DownloadSettings, oddities: Oddities, where: str
) -> None:
    usable = [row for row in rows if LOST not in row]
    if usable and settings.keep_uncaptioned:
        return
    if any(row.get(CAPTION) and is_well_formed(row[CAPTION]) for row in usable):
        return
    reason = next(iter(oddities.examples.values()), None)
    if reason:
        raise StepError(f"url_table: {reason}; no picture under {uri} has a caption that can be read")
    keys = f"; its metadata have {', '.join(sorted(oddities.keys))[:200]}" if oddities.keys else ""
    raise StepError(
        f"url_table: no picture under {uri} has a caption: neither {' nor '.join(caption_keys(settings))} "
        f"in {where}{keys}; name the key as download.caption_column, or set download.keep_uncaptioned"
    )


def stored_names(uri: str) -> dict[str, int]:
    """Return every file under a folder with its size, by its path below it, in the order of names; no debris."""
    files, root = fsspec.core.url_to_fs(uri.rstrip("/"))
    try:
        entries = files.find(root, detail=True)
    except FileNotFoundError:
        entries = {}
    start = len(str(root).rstrip("/")) + 1
    return {path[start:]: int(of["size"]) for path, of in sorted(entries.items()) if not is_debris(path[start:])}


def note_if_no_text(oddities: Oddities, place: str, caption: Any) -> None:
    if not is_well_formed(caption):
        oddities.note(Cause.BAD_TEXT, f"{place}: the caption is no text ({WHY_NO_TEXT})")
