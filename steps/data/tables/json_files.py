"""A table of JSON or text files, in the order of their names; compressed ones are unpacked on the way.

JSON Lines (.jsonl, .ndjson) are streamed; .json, a list of rows or an object of columns, is read whole; .txt has an
address a line. Opening reads them once. A line that is no JSON object is a row that is lost, where it stands.
"""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Final, cast

import pyarrow as pa

from steps.data.causes import Cause
from steps.data.tables import row_files
from steps.data.tables.row_files import LOST, TEXT, Oddities, TableFiles, kind_of, opened, require_columns
from steps.data.tables.text_column import from_values
from steps.errors import StepError

MAX_LINE_BYTES: Final = 16 << 20
MAX_NAMES: Final = 10_000

Row = dict[str, Any] | None
"""None: it cannot be read."""


class LineFiles(TableFiles):
    """Rows of JSON or text files; values come as bytes, lists or numbers."""

    def _look_at(self, path: str, hasher: Any) -> None:
        row_files.hash_file(hasher, self._files, path)
        names: dict[str, None] = {}
        for row in self._rows(path):
            self.rows += 1
            if len(names) < MAX_NAMES:
                names.update(dict.fromkeys(row or ()))
        self.names = tuple(names)
        self._require(path, self.names)

    def _batches(self, path: str, columns: Sequence[str]) -> Iterator[Any]:
        rows = iter(self._rows(path))
        while batch := list(islice(rows, row_files.BATCH_ROWS)):
            values = {name: from_values([row.get(name) if row else None for row in batch]) for name in columns}
            lost = pa.array([Cause.BAD_ROW.value if row is None else None for row in batch], pa.string())
            yield pa.record_batch({**values, LOST: lost})

    def _require(self, path: str, names: tuple[str, ...]) -> None:
        if kind_of(path) != TEXT:
            if not names and self.oddities.examples:
                raise StepError(f"url_table: {next(iter(self.oddities.examples.values()))}")
            require_columns(path, names, self._settings)
        elif not self._settings.keep_uncaptioned:
            raise StepError(
                f"url_table: {path} has addresses and no captions; set download.keep_uncaptioned to keep pictures "
                "without, or write url and caption as columns of a .csv"
            )

    def _rows(self, path: str) -> Iterator[Row]:
        with opened(self._files, path) as content:
            stream: Any = io.BufferedReader(cast(Any, content), 1 << 20)
            try:
                if kind_of(path) == TEXT:
                    yield from self._addresses(stream)
                elif kind_of(path) == row_files.JSON:
                    yield from read_json(stream, path, self._settings.url_column, self.oddities)
                else:
                    yield from read_lines(stream, path, self.oddities)
            except OSError as error:
                raise StepError(f"url_table: {path}: {str(error)[:200]}") from None

    def _addresses(self, stream: Any) -> Iterator[Row]:
        settings = self._settings
        for line in bounded_lines(stream):
            text = "" if line is None else line.decode("utf-8", "surrogateescape").strip().lstrip("\ufeff")
            if text or line is None:
                yield {settings.url_column: text, settings.caption_column: None} if text else None


def bounded_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield lines, which end with a line feed and nothing else; None for one that is too long."""
    while line := stream.readline(MAX_LINE_BYTES):
        whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
        while not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            line = stream.readline(MAX_LINE_BYTES)
        yield line if whole else None


def read_lines(stream: BinaryIO, path: str, oddities: Oddities) -> Iterator[Row]:
    """Yield the objects of JSON Lines; None for a line that is none. Bytes that are no UTF-8 become surrogates."""
    for number, line in enumerate(bounded_lines(stream), 1):
        text = "" if line is None else line.decode("utf-8", "surrogateescape").lstrip("\ufeff")
        if line is not None and not text.strip():
            continue
        row = parsed(text)
        yield _object(row, f"{path} line {number}: no JSON object: {text[:80]!r}", oddities)


def _object(row: Any, words: str, oddities: Oddities) -> Row:
    if isinstance(row, dict):
        return row
    oddities.note(Cause.BAD_ROW, words)
    return None


def read_json(stream: BinaryIO, path: str, url_column: str, oddities: Oddities) -> Iterator[Row]:
    """Yield the rows of a list, an object of columns, or of lines after all. Raises StepError for anything else."""
    content = stream.read().decode("utf-8", "surrogateescape").lstrip("\ufeff")
    try:
        document = json.loads(content)
    except RecursionError:
        raise StepError(f"url_table: {path}: its JSON is nested too deeply") from None
    except ValueError as error:
        if content.lstrip()[:1] == "{":
            yield from read_lines(io.BytesIO(content.encode("utf-8", "surrogateescape")), path, oddities)
            return
        raise StepError(f"url_table: {path} is no JSON: {error}; JSON Lines would lose a row alone") from None
    if isinstance(document, list):
        for number, row in enumerate(document, 1):
            yield _object(row, f"{path} entry {number}: no JSON object: {row!r:.80}", oddities)
        return
    yield from _of_object(document if isinstance(document, dict) else {}, path, url_column)


def _of_object(document: dict[str, Any], path: str, url_column: str) -> Iterator[Row]:
    if url_column not in document:
        names = ", ".join(document)[:300] or "nothing"
        raise StepError(
            f"url_table: {path} has no column {url_column!r}; it has {names}; name it as download.url_column, or write "
            "a list of rows"
        )
    # pandas writes a column as an object of row numbers.
    columns = {name: list(of.values()) if isinstance(of, dict) else of for name, of in document.items()}
    urls = columns[url_column]
    if not isinstance(urls, list):
        yield document
        return
    lists = {name: of for name, of in columns.items() if isinstance(of, list)}
    if len({len(column) for column in lists.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in lists.items())
        raise StepError(f"url_table: {path}: its columns have different lengths: {lengths[:300]}")
    for values in zip(*lists.values(), strict=True):
        yield dict(zip(lists, values, strict=True))


def parsed(text: str) -> Any:
    """Return what JSON says, or None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
