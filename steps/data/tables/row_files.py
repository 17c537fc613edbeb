"""Files of rows, streamed through fsspec: which kinds there are, how they are found, and what each gives."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import fsspec
import pyarrow as pa

from params.programs import DownloadSettings
from steps.errors import StepError

BATCH_ROWS: Final = 1 << 16
URL, CAPTION = "url", "caption"
CAPTIONS: Final = "captions"
"""All captions of a picture, where it has a list and all of it counts."""
CAPTION_KEYS: Final = ("text", CAPTION, "prompt")
LOST: Final = "#lost"
"""The last column of every batch: the cause by which a row cannot be read, or null."""
PARQUET: Final = ".parquet"
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
JSON_LINES: Final = (".jsonl", ".ndjson")
JSON: Final = ".json"
TEXT: Final = ".txt"
CODECS: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
KINDS: Final = "parquet, csv, tsv, jsonl, ndjson, json, txt (all but parquet also as .gz, .bz2, .zst)"
_WIDE: Final = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# A folder of tables may hold statistics and a README: they are tables only where nothing before them is.
_BY_RANK: Final = ((PARQUET, *DELIMITERS), (*JSON_LINES, JSON), (TEXT,))
# What computers leave in folders: of macOS, Synology and Windows.
_DEBRIS: Final = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})


@dataclass
class Oddities:
    """What could not be read of a table, and costs no row or is marked in its row."""

    set_aside: Counter[str] = field(default_factory=Counter)
    """How many parts of it that cost no row, by kind."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first of each kind and cause, in words."""
    keys: set[str] = field(default_factory=set)
    """Keys that metadata of stored pictures have."""

    def note(self, cause: str, words: str) -> None:
        """Keep the first example of a cause."""
        self.examples.setdefault(cause, words)

    def add(self, other: "Oddities") -> None:
        """Take over what was noted elsewhere."""
        self.set_aside += other.set_aside
        self.keys |= other.keys
        self.examples = other.examples | self.examples

    def leave(self, kind: str, words: str) -> None:
        """Count a part that is left unread."""
        self.set_aside[kind] += 1
        self.note(kind, words)


def caption_keys(settings: DownloadSettings) -> tuple[str, ...]:
    """Return where metadata of stored pictures have the caption: as asked for, else as published sets name it."""
    column = settings.caption_column
    return CAPTION_KEYS if column == CAPTION else tuple(dict.fromkeys([column, column.lower(), column.upper()]))


class TableFiles(ABC):
    """Rows of files of one kind, in the order of the files' names."""

    names: tuple[str, ...] = ()

    def __init__(self, files: Any, paths: Sequence[str], settings: DownloadSettings) -> None:
        """Look at every file. Raises StepError where one cannot be read or lacks a column."""
        self._files, self._paths, self._settings = files, paths, settings
        self.oddities, self.rows = Oddities(), 0
        hasher = hashlib.sha256()
        for path in paths:
            self._look_at(path, hasher)
        self.digest = hasher.hexdigest()
        """Of the content: another one means other rows."""

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns as they are stored, in the order asked for, and LOST."""
        for path in self._paths:
            yield from self._batches(path, columns)

    @abstractmethod
    def _look_at(self, path: str, hasher: Any) -> None:
        """Note a file's columns, count its rows, and add to the digest what makes it this one."""

    @abstractmethod
    def _batches(self, path: str, columns: Sequence[str]) -> Iterator[Any]: ...


def open_files(uri: str, settings: DownloadSettings) -> TableFiles:
    """Open the table at an address. Raises StepError for no file, several kinds of files, or a missing column."""
    from steps.data.tables.delimited_files import DelimitedFiles
    from steps.data.tables.json_files import LineFiles
    from steps.data.tables.parquet_files import ParquetFiles

    files, root = fsspec.core.url_to_fs(uri)
    paths = _find(files, root, uri)
    kinds = {kind_of(path) or _sniffed(files, path) for path in paths}
    if len(kinds) > 1:
        raise StepError(f"url_table: {uri} holds {' and '.join(sorted(kinds))}; keep one kind of file there")
    kind = kinds.pop()
    if settings.column_names and kind not in DELIMITERS:
        raise StepError(f"column_names: they are for CSV and TSV files without a line of names; {uri} is {kind}")
    if kind == PARQUET:
        return ParquetFiles(files, paths, settings)
    for path in paths:
        _require_utf8(files, path, settings)
    if kind in DELIMITERS:
        return DelimitedFiles(files, paths, settings)
    return LineFiles(files, paths, settings)


def kind_of(path: str) -> str:
    """Return the suffix that says how to read a file, without that of its compression; empty for what is no table."""
    name = path.rsplit("/", 1)[-1].lower()
    plain = next((name.removesuffix(suffix) for suffix in CODECS if name.endswith(suffix)), name)
    suffix = "." + plain.rpartition(".")[2] if "." in plain else ""
    if suffix == PARQUET and plain == name:
        return PARQUET
    return suffix if suffix in (*DELIMITERS, *JSON_LINES, JSON, TEXT) else ""


def is_debris(path: str) -> bool:
    """Return whether a computer left a file there and no person: names that begin with a dot, and folders of such."""
    parts = path.split("/")
    return any((part.startswith(".") and part not in (".", "..")) or part in _DEBRIS for part in parts)


@contextmanager
def opened(files: Any, path: str) -> Iterator[Any]:
    """Open a file, unpacked on the way, as a pyarrow stream."""
    with files.open(path, "rb") as stream:
        content: Any = pa.PythonFile(stream, mode="r")
        codec = next((name for suffix, name in CODECS.items() if path.lower().endswith(suffix)), None)
        if codec:
            content = pa.CompressedInputStream(content, codec)
        yield content


def hash_file(hasher: Any, files: Any, path: str) -> None:
    """Add a file's name and bytes to the digest of its table."""
    hasher.update(f"{path.rsplit('/', 1)[-1]}\n".encode())
    with files.open(path, "rb") as stream:
        while content := stream.read(1 << 20):
            hasher.update(content)


def with_lost(batch: Any, cause: str | None = None) -> Any:
    """Return a batch all of whose rows are lost by a cause, or none."""
    return batch.append_column(LOST, pa.array([cause] * batch.num_rows, pa.string()))


def require_columns(path: str, names: Sequence[str], settings: DownloadSettings, hint: str = "") -> None:
    """Raise StepError that names the setting unless a file has the columns of addresses and captions, each once."""
    for setting in ("url_column", "caption_column"):
        column = getattr(settings, setting)
        if names.count(column) > 1:
            raise StepError(
                f"url_table: {path} has {names.count(column)} columns {column!r}; rename all but one, or name another "
                f"as download.{setting}"
            )
        if column not in names:
            raise StepError(
                f"url_table: {path} has no column {column!r}; it has {', '.join(names)[:500] or 'none'}"
                + (hint or f"; name it as download.{setting}")
            )


def _find(files: Any, root: str, uri: str) -> list[str]:
    try:
        if not files.isdir(root):
            paths = [root] if files.exists(root) else []
        else:
            start = len(root.rstrip("/")) + 1
            every = sorted(path for path in files.find(root) if not is_debris(path[start:]))
            ranks = ([path for path in every if kind_of(path) in kinds] for kinds in _BY_RANK)
            paths = next(filter(None, ranks), [])
    except PermissionError as error:
        raise StepError(f"url_table: {uri} cannot be read: {error}") from None
    if not paths:
        raise StepError(
            f"url_table: no parquet, CSV or TSV file at {uri}, nor another table ({KINDS}); "
            "for shards or a folder of pictures set download.source"
        )
    return paths


def _require_utf8(files: Any, path: str, settings: DownloadSettings) -> None:
    with opened(files, path) as content:
        try:
            begin = content.read(1 << 12)
        except OSError as error:
            raise StepError(f"url_table: {path} cannot be unpacked: {str(error)[:200]}") from None
    # The name of a column or an address in it: a mark or a zero at the begin may belong to an odd row.
    words = (settings.url_column, "://")
    if any(word.encode(wide) in begin for word in words for wide in _WIDE):
        raise StepError(f"url_table: {path} is UTF-16 or UTF-32; save it as UTF-8")


def _sniffed(files: Any, path: str) -> str:
    with files.open(path, "rb") as stream:
        if stream.read(4) == b"PAR1":
            return PARQUET
    raise StepError(f"url_table: {path}: its name does not tell which kind of table it is; these are read: {KINDS}")
