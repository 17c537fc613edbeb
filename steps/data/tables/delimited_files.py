"""A table of CSV or TSV files, in the order of their names; compressed ones are unpacked on the way.

They have no footer: opening them reads them once, to count the rows and to take their sha256. A line that has too many
or too few fields is a row that is lost; lost rows of a file come after its others. Columns that nobody asks for are
neither typed nor kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv

from steps.data.causes import Cause
from steps.data.tables import row_files
from steps.data.tables.row_files import DELIMITERS, Oddities, TableFiles, kind_of, with_lost
from steps.data.tables.stray_quotes import whole_lines
from steps.errors import StepError

# A line of a CSV file must fit into one block.
CSV_BLOCK_BYTES: Final = 16 << 20
_SEPARATORS: Final = (";", "\t", "|", ",")


class DelimitedFiles(TableFiles):
    """Rows of CSV or TSV files; values come as bytes."""

    def _look_at(self, path: str, hasher: Any) -> None:
        row_files.hash_file(hasher, self._files, path)
        names = self._header(path)
        self.names = self.names or names
        self.rows += sum(batch.num_rows for batch in self._batches(path, [self._settings.url_column]))

    def _batches(self, path: str, columns: Sequence[str]) -> Iterator[Any]:
        lost = _LostLines(path, self.oddities)
        with self._reader(path, lost, columns) as reader:
            for batch in reader:
                yield with_lost(batch)
        if lost.count:
            nulls = pa.nulls(lost.count, pa.string())
            yield with_lost(pa.record_batch(dict.fromkeys(columns, nulls)), Cause.BAD_ROW)

    def _header(self, path: str) -> tuple[str, ...]:
        with self._reader(path, _LostLines(path, Oddities())) as reader:
            names = tuple(reader.schema.names)
        hint = ""
        if any("://" in name for name in names):
            hint = "; its first line is data: name its columns in order as download.column_names, such as url,caption"
        elif len(names) == 1 and (other := next((mark for mark in _SEPARATORS if mark in names[0]), "")):
            hint = f"; its fields are separated by {other!r}: write it with {DELIMITERS[kind_of(path)]!r}"
        row_files.require_columns(path, names, self._settings, hint)
        return names

    @contextmanager
    def _reader(self, path: str, lost: "_LostLines", columns: Sequence[str] | None = None) -> Iterator[Any]:
        csv, kind = pyarrow.csv, kind_of(path)
        names, delimiter = self._settings.column_names, DELIMITERS[kind]
        quoted = kind != ".tsv" or self._settings.tsv_quotes
        with row_files.opened(self._files, path) as content:
            if quoted:
                content = whole_lines(content, delimiter, names, self._settings.url_column, lost.stray)
            try:
                yield csv.open_csv(
                    content,
                    read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES, column_names=list(names) or None),
                    parse_options=csv.ParseOptions(
                        delimiter=delimiter,
                        quote_char='"' if quoted else False,
                        newlines_in_values=quoted,
                        invalid_row_handler=lost,
                    ),
                    convert_options=csv.ConvertOptions(
                        column_types=dict.fromkeys(columns or (), pa.binary()),
                        include_columns=list(columns) if columns is not None else None,
                    ),
                )
            except UnicodeDecodeError:
                raise StepError(f"url_table: {path} line 1: the names of its columns are not UTF-8") from None
            except (pa.ArrowInvalid, OSError) as error:
                raise StepError(f"url_table: {path} cannot be read as {kind}: {str(error)[:200]}") from None


class _LostLines:
    def __init__(self, path: str, oddities: Oddities) -> None:
        self._path, self._oddities, self.count = path, oddities, 0

    def __call__(self, row: Any) -> str:
        self.count += 1
        fields = f"{row.actual_columns} fields where {row.expected_columns} are expected"
        self._oddities.note(Cause.BAD_ROW, f"{self._path}: {fields}: {row.text[:80]!r}")
        return "skip"

    def stray(self, lines: int, text: bytes) -> None:
        """Count lines that are left out for a quote that does not end."""
        self.count += lines
        self._oddities.note(Cause.BAD_ROW, f"{self._path}: a quote that does not end: {text[:80]!r}")
