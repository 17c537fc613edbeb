"""Lines of CSV that open a quote and never close it, left out of a stream.

Such a quote swallows the rows behind it up to the next one, and the picture of one row gets the caption of another.
Told by what a quoted field holds: further rows of the same table.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

BLOCK_BYTES: Final = 1 << 20
MAX_RECORD_BYTES: Final = 1 << 20
"""Of a row: a quote that is open for longer is taken for a stray one."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
# A piece of text without white space that names a place: an address, or a file by its suffix.
_ADDRESS: Final = re.compile(rb'[A-Za-z][A-Za-z0-9+.\-]*://[^\s"]+|[^\s"]+\.[A-Za-z0-9]{2,4}')


def whole_lines(
    stream: Any, delimiter: str, names: Sequence[str], url_column: str, lose: Callable[[int, bytes], None]
) -> io.BufferedReader:
    """Return a stream of CSV without the lines of stray quotes, which `lose` takes; `names` where the file has none."""
    return io.BufferedReader(_Pieces(_whole(stream, delimiter, names, url_column, lose)), BLOCK_BYTES)


class _Pieces(io.RawIOBase):
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


class _Table(NamedTuple):
    """How the rows of a table look."""

    delimiter: str
    columns: int
    url_place: int

    def parsed(self, lines: Iterable[bytes]) -> tuple[list[bytes], int]:
        """Return the fields of the first row, and over how many lines it goes; one more than there are: it is open."""
        reader = csv.reader(chain((line.decode("latin-1") for line in lines), [""]), delimiter=self.delimiter)
        try:
            return [field.encode("latin-1") for field in next(reader)], reader.line_num
        except csv.Error:  # a field too long
            return [b""], reader.line_num

    def has_address(self, fields: Sequence[bytes]) -> bool:
        return len(fields) > self.url_place and bool(_ADDRESS.fullmatch(fields[self.url_place]))

    def is_row(self, line: bytes) -> bool:
        """Return whether a line is a row of the table, with or without a stray quote of its own."""
        fields, count = self.parsed([line])
        return self.has_address(fields) and (len(fields) == self.columns or count > 1)

    def lost_lines(self, lines: Sequence[bytes], fields: Sequence[bytes], is_open: bool) -> int:
        """Return how many lines of a row over several are lost: none, the first, or all."""
        pieces = [_LINE_END.split(field) for field in fields]
        place = next((place for place, of in enumerate(pieces) if len(of) > 1), len(fields) - 1)
        ending, last = lines[min(len(pieces[place]), len(lines)) - 1], pieces[place][-1]
        inside = lines[1 : len(pieces[place]) - 1]
        # Behind the closing quote stand the other fields of the same row.
        if any(map(self.is_row, inside)) or (self.has_address(self.parsed([last])[0]) and self.is_row(ending)):
            return 1
        is_whole = not is_open and len(fields) == self.columns
        naive = lines[0].rstrip(b"\r\n").replace(b'"', b"").split(self.delimiter.encode())
        if place <= self.url_place and len(naive) == self.columns and self.has_address(naive):
            # The quoted field holds the address of its own line. If the row is whole all the same, then whose its last
            # address is cannot be told.
            return len(lines) if is_whole and self.has_address(fields) else 1
        closing = last.replace(b'"', b'""') + b'"'
        behind = ending.removeprefix(closing)[:1] if ending.startswith(closing) else b'"'
        is_closed = behind in (b"", b"\r", b"\n", self.delimiter.encode())
        return 0 if is_whole and is_closed else 1


def _whole(
    stream: Any, delimiter: str, names: Sequence[str], url_column: str, lose: Callable[[int, bytes], None]
) -> Iterator[bytes]:
    text = stream.read(BLOCK_BYTES)
    if not names:
        first = next(iter(text.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").splitlines()), b"")
        names = next(csv.reader([first.decode("utf-8", "replace")], delimiter=delimiter), [])
    if url_column not in names or len(names) < 2:
        yield from chain([text], iter(lambda: stream.read(BLOCK_BYTES), b""))
        return
    table = _Table(delimiter, len(names), names.index(url_column))
    while text:
        more = stream.read(BLOCK_BYTES)
        whole, text = _split(text, table, lose, is_last=not more)
        yield whole
        text += more


def _split(text: bytes, table: _Table, lose: Callable[[int, bytes], None], is_last: bool) -> tuple[bytes, bytes]:
    """Return what of a text is whole lines without stray quotes, and the rest, of which the end is not there yet."""
    lines = text.splitlines(keepends=True)
    end = len(lines) if is_last else len(lines) - 1
    kept, place = list[bytes](), 0
    while place < end:
        count = 1
        if b'"' in lines[place]:
            fields, count = table.parsed(lines[number] for number in range(place, end))
            is_open, count = count > end - place, min(count, end - place)
            if is_open or count > 1:
                if is_open and not is_last and sum(map(len, lines[place:])) < MAX_RECORD_BYTES:
                    break
                if lost := table.lost_lines(lines[place : place + count], fields, is_open):
                    lose(lost, b"".join(lines[place : place + lost]))
                    place += lost
                    continue
        kept += lines[place : place + count]
        place += count
    return b"".join(kept), b"".join(lines[place:])
