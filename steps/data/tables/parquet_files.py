"""A table of parquet files, in the order of their names.

Reads the columns that are asked for and no others; writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steps.data.tables.row_files import BATCH_ROWS, Oddities, Reading, require_columns, with_lost
from steps.data.tables.text_column import require_text
from steps.errors import StepError


class ParquetFiles:
    """Rows of parquet files."""

    def __init__(self, files: Any, paths: list[str], reading: Reading) -> None:
        self._files, self._paths, self._reading = files, paths, reading
        self.names: tuple[str, ...] = ()
        self.oddities = Oddities()
        hasher = hashlib.sha256()
        self.rows = 0
        for path in paths:
            schema, footer, facts = read_footer(files, path)
            self._require(path, schema)
            self.names = self.names or tuple(schema.names)
            hasher.update(f"{path.rsplit('/', 1)[-1]}\n{footer.num_rows}\n{footer.serialized_size}\n".encode())
            hasher.update(facts)
            self.rows += footer.num_rows
        self.digest = hasher.hexdigest()
        """Of the files' footers: sizes, statistics and places of all their columns."""

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns, and LOST."""
        for path in self._paths:
            with self._files.open(path, "rb") as stream:
                file = pq.ParquetFile(stream)
                self._require(path, file.schema_arrow)
                for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                    yield with_lost(batch.select(list(columns)))

    def _require(self, path: str, schema: Any) -> None:
        reading = self._reading
        hint = "; these rows hold pictures: set download.source to pictures" if image_columns(schema) else ""
        require_columns(path, schema.names, reading, hint)
        for setting in ("url_column", "caption_column"):
            column = getattr(reading, setting)
            require_text(path, column, schema.field(column).type, setting)


def read_footer(files: Any, path: str) -> tuple[Any, Any, bytes]:
    """Return a file's schema, its footer, and bytes that stand for all that the footer says.

    Raises StepError where it is no parquet file.
    """
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
    return [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and "bytes" in {field.type.field(i).name for i in range(field.type.num_fields)}
    ]
