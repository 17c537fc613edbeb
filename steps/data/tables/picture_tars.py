"""WebDataset shards that are stored already.

Reads every tar once, many at a time. A picture's address is `<tar>#<first byte>-<byte after the last>`. A sample's
caption is its .txt, else `text`, `caption` or `prompt` of its .json; where another caption_column is asked for, that
key of the .json comes first. As WebDataset has it, a key ends at the first dot of a name; the rest is the field.
"""

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, Final, cast

from params.layout import CAPTION_FILES, PICTURES, TARS
from params.programs import DownloadSettings
from steps.data.causes import Cause
from steps.data.storage import Storage
from steps.data.tables import stored_rows
from steps.data.tables.json_files import parsed
from steps.data.tables.row_files import CAPTION, LOST, URL, Oddities, is_debris
from steps.data.tables.stored_rows import MAX_TEXT_BYTES, Row, StoredRows
from steps.errors import StepError

READERS: Final = 16
BLOCK_BYTES: Final = 1 << 20
_ENDS_EARLY: Final = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


def open_shards(uri: str, settings: DownloadSettings) -> StoredRows:
    """Return the pictures in the tars under a prefix. Raises StepError for no tar, or no sample with a caption."""
    sizes = stored_rows.stored_names(uri)
    tars = [name for name in sizes if name.lower().endswith(TARS)]
    if not tars:
        raise StepError(f"url_table: no .tar (nor {' nor '.join(TARS[1:])}) under {uri}")
    with ThreadPoolExecutor(READERS) as threads:
        read = list(threads.map(partial(_tar_rows, uri, settings=settings), tars))
    oddities = Oddities()
    for _, odd in read:
        oddities.add(odd)
    rows = [row for part, _ in read for row in part]
    if not rows:
        reason = next(iter(oddities.examples.values()), f"no tar under {uri} has a picture ({', '.join(PICTURES)})")
        raise StepError(f"url_table: {reason}")
    where = "its .json, nor a .txt or .caption of its key"
    facts = json.dumps(rows, sort_keys=True)
    return StoredRows(uri, rows, settings, oddities, where, {name: sizes[name] for name in tars}, facts)


def _tar_rows(uri: str, name: str, settings: DownloadSettings) -> tuple[list[Row], Oddities]:
    oddities = Oddities()
    samples: dict[str, _Sample] = {}
    place, current = f"{uri}/{name}", ""
    try:
        with opened_tar(Storage(uri), name) as (stream, size):
            try:
                with tarfile.open(fileobj=cast(BinaryIO, _BoundedStream(stream)), mode="r:") as tar:
                    for member in tar:
                        folder, slash, file = member.name.rpartition("/")
                        stem, _, field = file.partition(".")
                        if member.isfile() and stem and not is_debris(member.name):
                            current = folder + slash + stem
                            sample = samples.setdefault(current, _Sample(f"{place}: {current}"))
                            sample.take(tar, member, field.lower(), name, oddities)
                        elif member.islnk() or member.issym():
                            oddities.leave("link", f"{place}: {member.name} is a link; pack it as a file")
                    # tarfile takes a piece of a header for the end.
                    stream.seek(tar.offset)
                    if 0 < len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                        raise tarfile.ReadError("unexpected end of data")
                    if any(part.count(0) < len(part) for part in iter(partial(stream.read, BLOCK_BYTES), b"")):
                        oddities.leave("second_tar", f"{place}: another tar stands behind its end; store it on its own")
            except _ENDS_EARLY as error:
                oddities.leave("cut_tar", f"{place}: {type(error).__name__}: {error}; copy or download it again")
                end = stream.tell() if size is None else size
                for key, sample in samples.items():
                    sample.cut(end, is_last=key == current)
    except OSError as error:
        raise StepError(f"url_table: {place}: {type(error).__name__}: {error}") from None
    return [sample.row(settings, oddities) for sample in samples.values() if sample.address], oddities


@contextmanager
def opened_tar(storage: Storage, name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a tar, unpacked on the way, with its size in bytes; None where that is not known before its end."""
    with storage.open(name, BLOCK_BYTES) as stream:
        if name.lower().endswith(".tar"):
            yield stream, storage.size(name)
        else:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=stream)), None


class _BoundedStream:
    """A stream that refuses to read much at once: tarfile holds a whole extended header in memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TEXT_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._read(size)


class _Sample:
    def __init__(self, place: str) -> None:
        self._place = place
        self.address, self._stop = "", 0
        self._is_plain, self._cause = False, ""
        self._text: bytes | None = None
        self._facts: dict[str, Any] = {}

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, field: str, name: str, oddities: Oddities) -> None:
        """Take a member; `field` is what stands behind the key's dot."""
        suffix = f".{field.rpartition('.')[2]}"
        is_plain = suffix == f".{field}"
        if is_plain and self._is_plain and suffix in PICTURES:
            oddities.leave("repeated_member", f"{self._place} has several {suffix}; give each sample its own key")
        if suffix in PICTURES and (is_plain or not self.address):
            # Of `jpg` and `mask.png` the picture is the first; of two fields with dots, the one that comes first.
            self.address = f"{name}#{member.offset_data}-{member.offset_data + member.size}"
            self._stop, self._is_plain = member.offset_data + member.size, is_plain
        elif suffix in CAPTION_FILES and (is_plain or self._text is None):
            if member.size > MAX_TEXT_BYTES:
                self._cause = Cause.BAD_TEXT
                oddities.note(Cause.BAD_TEXT, _too_long(self._place, suffix, member.size))
            else:
                self._text = _content(tar, member)
        elif field == "json":
            self._take_json(tar, member, oddities)

    def _take_json(self, tar: tarfile.TarFile, member: tarfile.TarInfo, oddities: Oddities) -> None:
        if member.size > MAX_TEXT_BYTES:
            oddities.leave("long_json", _too_long(self._place, ".json", member.size))
            return
        facts = parsed(_content(tar, member).decode("utf-8", "surrogateescape").lstrip("\ufeff"))
        if isinstance(facts, dict):
            self._facts = facts
        elif facts is None:
            oddities.leave("unread_json", f"{self._place}.json is no JSON")

    def cut(self, end: int, is_last: bool) -> None:
        """Take it that the tar has no more than `end` bytes."""
        if self._stop > end or (is_last and self._text is None):
            self._cause = self._cause or Cause.TRUNCATED

    def row(self, settings: DownloadSettings, oddities: Oddities) -> Row:
        oddities.keys.update(self._facts)
        row: Row = {**stored_rows.facts_of(self._facts, settings), URL: self.address}
        asked_for = settings.caption_column != CAPTION and CAPTION in row
        if self._text is not None and not asked_for and (self._text.strip() or stored_rows.is_blank(row.get(CAPTION))):
            row[CAPTION] = stored_rows.caption_in(self._text, settings)
        stored_rows.note_if_no_text(oddities, self._place, row.get(CAPTION))
        return {**row, LOST: str(self._cause)} if self._cause else row


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return b"" if stream is None else stream.read()


def _too_long(place: str, suffix: str, count: int) -> str:
    return f"{place}{suffix} has {count} bytes, and at most {MAX_TEXT_BYTES} are read"
