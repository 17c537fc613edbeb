"""Lines of CSV that open a quote and never close it.

Such a quote swallows the rows behind it up to the next one, and the picture of one row gets the caption of another.
Told by what a quoted field holds: further rows of the same table. Reads and hands on a stream; writes nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

BLOCK_BYTES: Final = 1 << 20
MAX_RECORD_BYTES: Final = 1 << 20
"""Of a row: a quote that is open for longer is taken for a stray one."""

# A piece of text without white space that names a place: an address, or a file by its suffix.
_ADDRESS: Final = rb'"?(?:[A-Za-z][A-Za-z0-9+.\-]*://[^\s%b"]+|[^\s%b"]+\.[A-Za-z0-9]{2,4})"?'
_QUOTED: Final = re.compile(rb'"(?:[^"]|"")*+"')
_LINE_START: Final = rb"(?<![^\r\n])"
_LINE_END: Final = rb"(?=[\r\n]|\Z)"


def whole_lines(
    stream: Any, delimiter: str, names: Sequence[str], url_column: str, lose: Callable[[int, bytes], None]
) -> io.BufferedReader:
    """Return a stream of CSV without the lines whose quotes are stray.

    `names` are the columns, where the file does not begin with them; `lose` takes lines that are left out.
    """
    return io.BufferedReader(_Pieces(_whole(stream, delimiter.encode(), names, url_column, lose)), BLOCK_BYTES)


class _Pieces(io.RawIOBase):
    """A stream of what an iterator yields."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class _Patterns:
    def __init__(self, delimiter: bytes, columns: int, url_place: int) -> None:
        self.field_ends = (b"", b"\r", b"\n", delimiter)
        """What stands behind a closing quote."""
        plain = rb'[^"%b\r\n][^%b\r\n]*+|' % (delimiter, delimiter)
        in_line = rb'(?:"(?:[^"\r\n]|"")*+"[^%b\r\n]*+|%b)' % (delimiter, plain)
        over_lines = rb'(?:"(?:[^"]|"")*+"[^%b\r\n]*+|%b)' % (delimiter, plain)
        naive = rb"[^%b\r\n]*+" % delimiter
        open_field = rb'"(?:[^"\r\n]|"")*+'
        address = _ADDRESS % (delimiter, delimiter)
        behind = columns - url_place - 1
        self.open_line = re.compile(_LINE_START + rb"((?:%b%b)*+)%b" % (in_line, delimiter, open_field) + _LINE_END)
        """A line that ends within quotes; its group is what stands before them."""
        self.record = re.compile(rb"%b(?:%b%b)*+" % (over_lines, delimiter, over_lines) + _LINE_END)
        """A row, over as many lines as its quotes say."""
        self.fields = re.compile(
            rb"(?:%b%b){%d}(%b)(?:%b%b){%d}"
            % (over_lines, delimiter, url_place, over_lines, delimiter, over_lines, behind)
        )
        """A row with as many fields as the table has; its group is the address."""
        self.address = re.compile(address)
        fields = b"|".join(
            rb"(?:%b%b){%d}%b%b" % (delimiter, in_line, count, delimiter, open_field) for count in range(behind)
        )
        whole = rb"(?:%b%b){%d}" % (delimiter, in_line, behind)
        ends = rb"(?:%b)" % b"|".join(filter(None, [whole, fields]))
        before = rb"(?:%b%b){%d}" % (in_line, delimiter, url_place)
        self.row = re.compile(_LINE_START + before + rb"(%b)" % address + ends + _LINE_END)
        """A line that is a row of the table, with or without a stray quote of its own; its group is the address."""
        self.unquoted = re.compile(
            rb"(?:%b%b){%d}(%b)(?:%b%b){%d}" % (naive, delimiter, url_place, address, delimiter, naive, behind)
        )
        """A line that is a row where quotes are characters; its group is the address."""

    def is_whole(self, text: bytes, record: re.Match[bytes] | None) -> bool:
        """Return whether a row has all its fields, and an address where that belongs."""
        fields = record and self.fields.fullmatch(text, *record.span())
        return bool(fields and self.address.fullmatch(text, *fields.span(1)))


def _whole(
    stream: Any, delimiter: bytes, names: Sequence[str], url_column: str, lose: Callable[[int, bytes], None]
) -> Iterator[bytes]:
    text = stream.read(BLOCK_BYTES)
    patterns = _patterns(text, delimiter, names, url_column)
    while patterns:
        more = stream.read(BLOCK_BYTES)
        whole, text = _split(text, patterns, lose, is_last=not more)
        yield whole
        text += more
        if not more:
            return
    while text:
        yield text
        text = stream.read(BLOCK_BYTES)


def _patterns(text: bytes, delimiter: bytes, names: Sequence[str], url_column: str) -> _Patterns | None:
    """Return how lines look; None where the columns are not known."""
    if not names:
        line = next(iter(text.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").splitlines()), b"")
        try:
            reader = csv.reader([line.decode("utf-8", "replace")], delimiter=delimiter.decode())
            names = next(reader, [])
        except csv.Error:
            return None
    return _Patterns(delimiter, len(names), names.index(url_column)) if url_column in names and len(names) > 1 else None


def _split(text: bytes, patterns: _Patterns, lose: Callable[[int, bytes], None], is_last: bool) -> tuple[bytes, bytes]:
    """Return what of a text is whole lines without stray quotes, and the rest, of which the end is not there yet."""
    end = len(text) if is_last else text.rfind(b"\n") + 1 or text.rfind(b"\r", 0, -1) + 1
    kept, begin, place = [], 0, 0
    while opening := patterns.open_line.search(text, place, end) if b'"' in text else None:
        record = patterns.record.match(text, opening.start(), end)
        stop = record.end() if record else end
        first_line = slice(opening.start(), opening.end())
        unquoted = patterns.unquoted.fullmatch(text, first_line.start, first_line.stop)
        quoted = _QUOTED.match(text, opening.end(1), end)
        close = quoted.end() if quoted else end
        # Behind the closing quote stand the other fields of the same row.
        if any(row.start(1) < close for row in patterns.row.finditer(text, opening.end(), stop)):
            lost = first_line
        elif unquoted and unquoted.start(1) >= opening.end(1):
            # The quoted field holds the address of its own line. If the row is whole all the same, then whose its last
            # address is cannot be told.
            lost = slice(opening.start(), stop) if patterns.is_whole(text, record) else first_line
        elif (
            record
            and text[close : close + 1] in patterns.field_ends
            and patterns.fields.fullmatch(text, *record.span())
        ):
            place = stop
            continue
        elif record:
            lost = first_line
        elif not is_last and len(text) - opening.start() < MAX_RECORD_BYTES:
            end = opening.start()
            break
        else:
            lost = first_line
        kept.append(text[begin : lost.start])
        lose(len(text[lost].splitlines()), text[lost])
        begin = place = lost.stop
    return b"".join([*kept, text[begin:end]]), text[end:]
