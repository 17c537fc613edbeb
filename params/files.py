"""Files that are whole or absent, and what their bytes are known by: standard library only, for every room.

Writes `.<name>.<process>.<thread>.partial` next to the file and renames it. A reader, a listing and a job that goes on
after a kill never take such a name for the file, and two writers of one file never share it.
"""

import gzip
import hashlib
import json
import os
import sysconfig
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# Only a header made to exhaust the memory asks for more than this at once.
MAX_READ_BYTES: Final = 2**20
PARTIAL: Final = ".partial"
"""What the name of an unfinished file or folder ends with."""


@contextmanager
def whole_file(path: Path, synced: bool = False) -> Iterator[Path]:
    """Yield where to write; the file appears at `path` whole, or not at all. `synced` ones outlive a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{PARTIAL}")
    try:
        yield partial
        if synced:
            sync(partial)
        partial.replace(path)
    except OSError as error:
        # A full disk is told without a name.
        error.filename = error.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    if synced:
        sync(path.parent)


def read_text(path: Path, refused: type[Exception]) -> str:
    """Return the text of a file that a person wrote, in UTF-8; raise `refused` with its path and the fix otherwise."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise refused(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise refused(f"{path}: not UTF-8 text: byte {error.start} is {byte:#04x}; save it as UTF-8") from None


def write_bytes(path: Path, content: bytes, synced: bool = False) -> None:
    """Write a file whole or not at all."""
    with whole_file(path, synced) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str, synced: bool = False) -> None:
    """Write a UTF-8 file whole or not at all."""
    write_bytes(path, text.encode(), synced)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented for people, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def import_path(root: Path) -> dict[str, str]:
    """Return how another Python finds a folder's packages; not for site-packages, which would hide the library's."""
    installed = Path(sysconfig.get_path("purelib")).resolve() == root.resolve()
    return {} if installed else {"PYTHONPATH": str(root)}


def sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BoundedGzip(gzip.GzipFile):
    """Gzip stream that refuses to read much at once: tarfile holds a whole extended header in memory."""

    def read(self, size: int | None = -1) -> bytes:
        """Return up to so many bytes; tarfile itself copies 16 KiB at a time."""
        if size is None or not 0 <= size <= MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
