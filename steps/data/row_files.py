"""Files of rows: parquet, CSV or TSV with named columns, one file or a folder of them.

Reads through fsspec, streaming: a table may be larger than memory. Writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Protocol

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from steps.errors import StepError

BATCH_ROWS: Final = 1 << 16
URL, CAPTION = "url", "caption"
"""Columns of pictures that one has already, and of what img2dataset is given."""
# A line of a CSV file must fit into one block.
CSV_BLOCK_BYTES: Final = 16 << 20
DELIMITERS: Final = {".csv": ",", ".tsv": "\t", ".csv.gz": ",", ".tsv.gz": "\t"}


class RowSource(Protocol):
    """Rows with named columns, in a fixed order."""

    rows: int
    """How many."""
    digest: str
    """Of the content: another one means other rows."""
    names: tuple[str, ...]
    """Columns."""

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns, in the order asked for."""


def open_files(uri: str, columns: Sequence[str]) -> RowSource:
    """Open the table at an address; `columns` must be there.

    Raises StepError where there is no such file, files are of several kinds, or one lacks a column.
    """
    files, root = fsspec.core.url_to_fs(uri)
    found = _find(files, root, uri)
    kinds = {_kind(path) for path in found}
    if len(kinds) > 1:
        raise StepError(f"url_table: {uri} holds {' and '.join(sorted(kinds))}; keep one kind of file there")
    if kinds == {".parquet"}:
        return ParquetFiles(files, found, columns)
    return DelimitedFiles(files, found, columns)


def _kind(path: str) -> str:
    """Return the suffix that says how to read a file; empty for what is no table."""
    name = path.rsplit("/", 1)[-1].lower()
    return next((suffix for suffix in (".parquet", *DELIMITERS) if name.endswith(suffix)), "")


def _find(files: Any, root: str, uri: str) -> list[str]:
    try:
        if not files.isdir(root):
            # Whatever its name, a single file that is named is a table: parquet unless its name says otherwise.
            found = [root] if files.exists(root) else []
        else:
            found = sorted(path for path in files.find(root) if _kind(path))
    except PermissionError as error:
        raise StepError(f"url_table: {uri} cannot be read: {error}") from None
    if not found:
        raise StepError(
            f"url_table: no parquet, CSV or TSV file at {uri}; for shards or a folder of pictures set download.source"
        )
    return found


class ParquetFiles:
    """Parquet files, in the order of their names."""

    def __init__(self, files: Any, paths: list[str], columns: Sequence[str]) -> None:
        self._files, self._paths = files, paths
        self.names: tuple[str, ...] = ()
        hasher = hashlib.sha256()
        self.rows = 0
        for path in paths:
            names, footer = self._footer(path)
            _require(path, names, columns)
            self.names = self.names or names
            hasher.update(f"{path.rsplit('/', 1)[-1]}\n{footer.num_rows}\n{footer.serialized_size}\n".encode())
            hasher.update(repr(footer.to_dict()).encode())
            self.rows += footer.num_rows
        self.digest = hasher.hexdigest()
        """Of the files' footers: sizes, statistics and places of all their columns."""

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns."""
        for path in self._paths:
            with self._files.open(path, "rb") as stream:
                file = pq.ParquetFile(stream)
                _require(path, file.schema_arrow.names, columns)
                for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                    yield batch.select(list(columns))

    def _footer(self, path: str) -> tuple[tuple[str, ...], Any]:
        with self._files.open(path, "rb") as stream:
            try:
                file = pq.ParquetFile(stream)
            except pa.ArrowInvalid as error:
                raise StepError(f"url_table: {path} is not parquet: {str(error)[:100]}") from None
            return tuple(file.schema_arrow.names), file.metadata


class DelimitedFiles:
    """CSV or TSV files with a line of names, in the order of their names; `.gz` is unpacked on the way.

    They have no footer: opening them reads them once, to count the rows and to take their sha256.
    """

    def __init__(self, files: Any, paths: list[str], columns: Sequence[str]) -> None:
        self._files, self._paths, self._texts = files, paths, tuple(columns)
        self.names: tuple[str, ...] = ()
        hasher = hashlib.sha256()
        self.rows = 0
        for path in paths:
            hasher.update(f"{path.rsplit('/', 1)[-1]}\n".encode())
            with self._files.open(path, "rb") as stream:
                while content := stream.read(1 << 20):
                    hasher.update(content)
            with self._reader(path) as reader:
                names = tuple(reader.schema.names)
                _require(path, names, columns)
                self.names = self.names or names
                self.rows += sum(batch.num_rows for batch in _checked(path, reader))
        self.digest = hasher.hexdigest()
        """sha256 of the files."""

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns."""
        for path in self._paths:
            with self._reader(path, columns) as reader:
                yield from _checked(path, reader)

    @contextmanager
    def _reader(self, path: str, columns: Sequence[str] | None = None) -> Iterator[Any]:
        csv = pyarrow.csv
        stream: BinaryIO = self._files.open(path, "rb")
        content: Any = pa.PythonFile(stream, mode="r")
        kind = _kind(path)
        if kind.endswith(".gz"):
            content = pa.CompressedInputStream(content, "gzip")
        try:
            reader = csv.open_csv(
                content,
                read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
                parse_options=csv.ParseOptions(delimiter=DELIMITERS[kind], newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(self._texts, pa.string()),
                    include_columns=list(columns) if columns is not None else None,
                ),
            )
        except pa.ArrowInvalid as error:
            stream.close()
            raise StepError(f"url_table: {path} cannot be read as {kind}: {str(error)[:200]}") from None
        except (pa.ArrowKeyError, KeyError) as error:
            stream.close()
            raise StepError(f"url_table: {path} has no column {str(error)[:200]}") from None
        try:
            yield reader
        finally:
            stream.close()


def _checked(path: str, reader: Any) -> Iterator[Any]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except pa.ArrowInvalid as error:
            raise StepError(f"url_table: {path}: {str(error)[:200]}") from None
        yield batch


def _require(path: str, names: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if column not in names:
            raise StepError(f"url_table: {path} has no column {column!r}; it has {', '.join(names)}")
