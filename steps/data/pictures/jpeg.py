"""The structure of a JPEG file: where it ends, and whether its scans hold the whole picture.

A decoder shows what it has: of a progressive JPEG that lost its last scans a blur, of one that lost a component other
colours, and neither is an error to it. And the bytes ff d9 are an end only where a marker can stand: thumbnails, and
the film behind a motion photo, have them too. Markers: ITU-T T.81, annex B.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_SCANS: Final = 100
"""An encoder writes some ten; each costs a decoder a pass over the picture (libjpeg-turbo's limit is 500)."""

_SOI: Final = b"\xff\xd8"
EOI: Final = b"\xff\xd9"
START_OF_SCAN: Final = b"\xff\xda"
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
_DECODABLE: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_START_OF_SCAN, _END = 0xDA, 0xD9
_APP0, _APP14 = 0xE0, 0xEE
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_COEFFICIENTS: Final = 64
# In a scan's data 0xff is stuffed with 0x00; restart markers stand in it.
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_MARKER = re.compile(rb"\xff[\x01-\xfe]")


@dataclass
class JpegStructure:
    """What the markers of a file say."""

    end: int | None = None
    """The byte after its end marker; None: it has none."""
    precision: int = 8
    frame: int = 0
    """Marker of its kind of coding (0xc0: baseline, 0xc2: progressive, ...)."""
    scans: int = 0
    _bits_left: dict[int, list[int | None]] = field(default_factory=dict)
    """By component: low bits of each coefficient that no scan has sent; None: nothing of it."""

    @property
    def components(self) -> int:
        """How many colours, or inks, it has."""
        return len(self._bits_left)

    @property
    def is_decodable(self) -> bool:
        """Whether browsers and libjpeg know this kind: 8 bits, sequential or progressive."""
        return not self.frame or (self.precision == 8 and self.frame in _DECODABLE)

    @property
    def is_complete(self) -> bool:
        """Whether the scans hold every bit of every component."""
        return bool(self._bits_left) and all(bits == 0 for of in self._bits_left.values() for bits in of)

    def begin_frame(self, marker: int, segment: bytes) -> None:
        """Note a frame's header. Raises IndexError where it ends early."""
        self.frame, self.precision = marker, segment[0]
        self._bits_left = {segment[6 + 3 * number]: [None] * _COEFFICIENTS for number in range(segment[5])}

    def begin_scan(self, segment: bytes) -> None:
        """Note a scan's header. Raises IndexError where it ends early."""
        self.scans += 1
        count = segment[0]
        first, last, low = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count] & 15
        if self.frame not in _PROGRESSIVE:
            first, last, low = 0, _COEFFICIENTS - 1, 0
        for component in segment[1 : 1 + 2 * count : 2]:
            if component in self._bits_left:
                sent = range(first, min(last, _COEFFICIENTS - 1) + 1)
                self._bits_left[component][first : last + 1] = [low for _ in sent]


def jpeg_structure(content: bytes) -> JpegStructure:
    """Return what the markers say, up to the end of the picture: what stands behind it is not looked at."""
    structure = JpegStructure()
    for code, _, segment, end in _segments(content):
        if code == _END:
            structure.end = end
        # A header that ends early leaves the picture incomplete.
        with contextlib.suppress(IndexError):
            if code in _START_OF_FRAME:
                structure.begin_frame(code, segment[2:])
            elif code == _START_OF_SCAN:
                structure.begin_scan(segment[2:])
        if structure.scans > MAX_SCANS:
            break
    return structure


def tidied(content: bytes) -> bytes:
    """Return a JPEG without the oddities that libjpeg warns of and no pixel shows.

    These are stray bytes between segments, an unknown version of JFIF or transform of Adobe, spectral limits in a
    sequential scan, and zeros that fill up a scan. libjpeg tells only of the first thing that it finds, so that these
    would hide real damage; what it warns of afterwards is damage.
    """
    structure, parts, is_scan = jpeg_structure(content), [_SOI], False
    for code, before, segment, _ in _segments(content):
        if is_scan:
            # The data's own last bytes may be zeros, and libjpeg takes a few more without a word.
            parts.append(before.rstrip(b"\x00") + bytes(2 * before.endswith(b"\x00")))
        parts += [bytes([0xFF, code]), _tidied_segment(code, segment, structure)]
        is_scan = code == _START_OF_SCAN
    return b"".join(parts)


def _segments(content: bytes) -> Iterator[tuple[int, bytes, bytes, int]]:
    """Yield each marker up to the end's: its code, what stands before it, its segment from its length on, its end."""
    position, marker = len(_SOI), _MARKER
    while marked := marker.search(content, position):
        code, before, begin = content[marked.start() + 1], content[position : marked.start()], marked.end()
        has_length = code != _END and code not in _WITHOUT_LENGTH
        position = begin + max(int.from_bytes(content[begin : begin + 2], "big"), 2) if has_length else begin
        yield code, before, content[begin:position], position
        if code == _END:
            return
        marker = _AFTER_SCAN if code == _START_OF_SCAN else _MARKER


def _tidied_segment(code: int, segment: bytes, structure: JpegStructure) -> bytes:
    if code == _APP0 and segment[2:7] == b"JFIF\x00":
        return segment[:7] + b"\x01" + segment[8:]
    if code == _APP14 and segment[2:7] == b"Adobe" and segment[13:14] > b"\x02":
        # As libjpeg takes it: YCbCr, or YCCK.
        return segment[:13] + (b"\x01" if structure.components == 3 else b"\x02") + segment[14:]
    if code == _START_OF_SCAN and structure.frame not in _PROGRESSIVE:
        return segment[:-3] + bytes([0, _COEFFICIENTS - 1, 0])
    return segment
