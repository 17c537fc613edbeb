"""Tables of parquet files: of addresses, or of the pictures themselves, as Hugging Face's data sets are published.

Of pictures, a column of structs of `bytes` and `path`, or of bytes, is the picture, and another is its caption. Reads
the columns that are asked for and no others, through fsspec; writes nothing. Pictures are read when they are asked for,
in the order of the rows.
"""

import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from params.programs import DownloadSettings
from steps.data.tables.row_files import BATCH_ROWS, CAPTION, URL, TableFiles, caption_keys, require_columns, with_lost
from steps.data.tables.text_column import require_text
from steps.errors import StepError

PLACE: Final = re.compile(r"(.+\.parquet)#([0-9]+):([0-9]+)", re.IGNORECASE)
_IMAGE_NAMES: Final = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")
# Rows are asked for in order, but by many threads at once: those just passed are kept.
_BATCH_PICTURES: Final = 32
_BATCHES_KEPT: Final = 16
_GROUPS_KEPT: Final = 2


class ParquetFiles(TableFiles):
    """Rows of parquet files; their digest is of the footers: sizes, statistics and places of all columns."""

    def _look_at(self, path: str, hasher: Any) -> None:
        schema, footer, facts = _footer(self._files, path)
        hint = "; these rows hold pictures: set download.source to pictures" if image_columns(schema) else ""
        require_columns(path, schema.names, self._settings, hint)
        for setting in ("url_column", "caption_column"):
            column = getattr(self._settings, setting)
            require_text(path, column, schema.field(column).type, setting)
        self.names = self.names or tuple(schema.names)
        hasher.update(f"{path.rsplit('/', 1)[-1]}\n{footer.num_rows}\n{footer.serialized_size}\n".encode() + facts)
        self.rows += footer.num_rows

    def _batches(self, path: str, columns: Sequence[str]) -> Iterator[Any]:
        with self._files.open(path, "rb") as stream:
            # Fetched ahead, what lies on a disk is only copied.
            file = pq.ParquetFile(stream, pre_buffer=not isinstance(self._files, LocalFileSystem))
            groups = range(file.num_row_groups)
            # pyarrow fetches what it is asked for ahead, and keeps it to the end: a file's worth, if asked for a file.
            several = max(1, BATCH_ROWS * len(groups) // max(1, file.metadata.num_rows))
            for first in groups[::several]:
                some = list(groups[first : first + several])
                for batch in file.iter_batches(BATCH_ROWS, row_groups=some, columns=list(columns)):
                    yield with_lost(batch.select(list(columns)))


class PictureParquet(TableFiles):
    """Rows of parquet files that hold pictures; the url is a row's place."""

    def __init__(self, uri: str, names: Sequence[str], settings: DownloadSettings) -> None:
        self._uri, self._caption = uri, ""
        files, self._root = fsspec.core.url_to_fs(uri.rstrip("/"))
        super().__init__(files, names, settings)

    def _look_at(self, path: str, hasher: Any) -> None:
        schema, footer, facts = _footer(self._files, f"{self._root}/{path}")
        column = image_column(schema)
        if not column:
            raise StepError(
                f"url_table: {self._uri}/{path} has no column of pictures (a struct of bytes and path, or bytes named "
                f"{', '.join(_IMAGE_NAMES)}); it has {', '.join(schema.names)}; for addresses set download.source "
                "to urls"
            )
        self._caption = _caption_column(f"{self._uri}/{path}", schema, self._settings)
        self.names = (URL, CAPTION, *(other for other in schema.names if other not in (URL, CAPTION, column)))
        hasher.update(f"{path}\n{footer.num_rows}\n".encode() + facts)
        self.rows += footer.num_rows

    def _batches(self, path: str, columns: Sequence[str]) -> Iterator[Any]:
        stored = {name: self._caption if name == CAPTION else name for name in columns if name != URL}
        nothing = pa.nulls(BATCH_ROWS, pa.string())
        with self._files.open(f"{self._root}/{path}", "rb") as stream:
            file = pq.ParquetFile(stream)
            wanted = sorted({column for column in stored.values() if column}) or [file.schema_arrow.names[0]]
            for group in range(file.num_row_groups):
                first = 0
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted):
                    urls = pa.array([f"{path}#{group}:{first + row}" for row in range(batch.num_rows)])
                    first += batch.num_rows
                    arrays = {name: batch.column(of) if of else nothing[: len(urls)] for name, of in stored.items()}
                    arrays[URL] = urls
                    yield with_lost(pa.record_batch({name: arrays[name] for name in columns}))


def _footer(files: Any, path: str) -> tuple[Any, Any, bytes]:
    """Return a file's schema, its footer, and bytes that stand for it. Raises StepError where it is no parquet file."""
    with files.open(path, "rb") as stream:
        try:
            file = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError) as error:
            raise StepError(f"url_table: {path} is not parquet: {str(error)[:100]}") from None
        footer = file.metadata
        try:
            facts = repr(footer.to_dict()).encode()
        except (UnicodeError, ValueError, OverflowError):
            # Statistics that are no text or no date: the footer as it lies in the file, before its length and `PAR1`.
            stream.seek(-8 - footer.serialized_size, 2)
            facts = stream.read(footer.serialized_size)
        return file.schema_arrow, footer, facts


def image_columns(schema: Any) -> list[str]:
    """Return the columns of Hugging Face's images: structs of `bytes` and `path`."""
    structs = (field for field in schema if pa.types.is_struct(field.type))
    return [field.name for field in structs if field.type.get_all_field_indices("bytes")]


def image_column(schema: Any) -> str:
    """Return the column that holds pictures, or ''."""
    named = (field for field in schema if field.name.lower() in _IMAGE_NAMES)
    binary = [field.name for field in named if field.type in (pa.binary(), pa.large_binary())]
    return next(iter([*image_columns(schema), *binary]), "")


def _caption_column(path: str, schema: Any, settings: DownloadSettings) -> str:
    keys = caption_keys(settings)
    for key in keys:
        if key in schema.names:
            require_text(path, key, schema.field(key).type, "caption_column")
            return key
    if settings.keep_uncaptioned:
        return ""
    raise StepError(
        f"url_table: {path} has no column {' or '.join(keys)}; it has {', '.join(schema.names)}; name "
        "the caption's as download.caption_column, or set download.keep_uncaptioned"
    )


class ParquetPictures:
    """Hands out the pictures of parquet files, by their places. Safe for threads."""

    def __init__(self, uri: str) -> None:
        self._files, self._root = fsspec.core.url_to_fs(uri.rstrip("/"))
        self._lock = threading.Lock()
        self._group = lru_cache(_GROUPS_KEPT)(self._opened)

    def read(self, name: str, group: int, row: int) -> bytes | None:
        """Return a row's picture, or None where it has no bytes. Raises FileNotFoundError."""
        with self._lock:
            return self._group(name, group).read(row)

    def _opened(self, name: str, group: int) -> "_Group":
        return _Group(pq.ParquetFile(self._files.open(f"{self._root}/{name}", "rb")), group)


class _Group:
    """One row group, read from front to back; the batches just passed are kept."""

    def __init__(self, file: Any, group: int) -> None:
        self._file, self._group = file, group
        self._kept: deque[tuple[int, Any]] = deque(maxlen=_BATCHES_KEPT)
        self._rewind()

    def read(self, row: int) -> bytes | None:
        if self._kept and row < self._kept[0][0]:
            self._rewind()
        while row >= self._end:
            batch = next(self._batches)
            self._kept.append((self._end, batch.column(0)))
            self._end += batch.num_rows
        first, column = next(kept for kept in self._kept if kept[0] <= row < kept[0] + len(kept[1]))
        value = column[row - first].as_py()
        return value.get("bytes") if isinstance(value, dict) else value

    def _rewind(self) -> None:
        columns = [image_column(self._file.schema_arrow)]
        options = {"row_groups": [self._group], "columns": columns, "use_threads": False}
        self._batches = self._file.iter_batches(_BATCH_PICTURES, **options)
        self._kept.clear()
        self._end = 0
