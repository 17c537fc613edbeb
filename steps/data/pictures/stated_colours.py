"""Colours that Pillow leaves out: PNG's cICP, gAMA and cHRM, AVIF's nclx, JPEG 2000's profile.

Without them Display P3 would be stored washed out and linear light dark. Numbers become an ICC profile here, which
colour_profile applies. Sources: PNG 3rd edition, 4.3 (which of them counts) and 11.3.2; ITU-T H.273 (the
code points); ISO/IEC 23000-22, 7.3.6, and 15444-1, I.5.3.3 (colr boxes); ICC.1:2022.
"""

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from typing import Final

import numpy as np

from steps.data.causes import Cause, LostRowError

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue."""

SRGB: Final[Chromaticities] = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
DISPLAY_P3: Final[Chromaticities] = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
BT_2020: Final[Chromaticities] = (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)

_PRIMARIES: Final = {9: BT_2020, 12: DISPLAY_P3}
_LINEAR, _HDR = 8, frozenset({16, 18})
_PNG_START: Final = 8
_WORDS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_RAW_EXIF: Final = b"Raw profile type exif\0"
MAX_PROFILE_BYTES: Final = 1 << 20
"""Unpacked, in a PNG: Pillow refuses the picture for a longer one."""
_NCLX: Final = b"colrnclx"
_JPEG_2000_PROFILE: Final = b"colr\2"
_BOXES_BYTES: Final = 1 << 16
_ENCODED_GAMMA: Final = 1 / 2.2
_GAMMAS: Final = (0.1, 2.0)
_TOLERANCE: Final = 0.01
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_SRGB_CURVE: Final = b"para\0\0\0\0\0\3\0\0" + struct.pack(
    ">5i", *(round(65536 * value) for value in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)


def stated_profile(content: bytes, name: str) -> bytes | None:
    """Return the profile that a picture states, or None. Raises LostRowError for PQ and HLG, which sRGB cannot show."""
    if name == "PNG":
        before_pixels = takewhile(lambda chunk: chunk[0] != b"IDAT", _chunks(content))
        return _stated_by_png({kind: whole[8:-4] for kind, whole in before_pixels})
    if name == "AVIF":
        place = content.find(_NCLX, 0, _BOXES_BYTES)
        if place >= 0:
            return _coded(*struct.unpack(">HH", content[place + len(_NCLX) :][:4].ljust(4, b"\0")))
    if name == "JPEG2000":
        place = content.find(_JPEG_2000_PROFILE, 0, _BOXES_BYTES)
        if place >= 0:
            profile = content[place + len(_JPEG_2000_PROFILE) + 2 :]
            return profile[: int.from_bytes(profile[:4], "big")]
    return None


def without_words(content: bytes) -> bytes:
    """Return a PNG without its words (prompts, XMP) and without an endless profile: Pillow refuses it for long ones."""
    kept = (whole for kind, whole in _chunks(content) if not _is_dropped(kind, whole))
    return content[:_PNG_START] + b"".join(kept)


def _is_dropped(kind: bytes, whole: bytes) -> bool:
    if kind in _WORDS:
        return not whole[8:].startswith(_RAW_EXIF)
    return kind == b"iCCP" and _is_unreadable(whole[8:-4])


def _is_unreadable(chunk: bytes) -> bool:
    packed = chunk.partition(b"\0")[2][1:]
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_PROFILE_BYTES)) >= MAX_PROFILE_BYTES
    except zlib.error:
        return True


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each chunk's kind, and the whole of it: length, kind, data and checksum."""
    position = _PNG_START
    while position + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        yield kind, content[position : position + length + 12]
        position += length + 12


def _stated_by_png(chunks: dict[bytes, bytes]) -> bytes | None:
    if len(chunks.get(b"cICP", b"")) == 4:
        return _coded(*chunks[b"cICP"][:2])
    if b"iCCP" in chunks and _is_unreadable(chunks[b"iCCP"]):
        # No profile, either: the table of samples then says that it was ignored.
        return chunks[b"iCCP"]
    if b"iCCP" in chunks or b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return None
    gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
    numbers = chunks.get(b"cHRM", b"")
    primaries = tuple(value / 100_000 for value in struct.unpack(">8I", numbers)) if len(numbers) == 32 else SRGB
    if not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        return None
    # Encoders write 0.45455 for sRGB's curve.
    curve = _SRGB_CURVE if abs(gamma - _ENCODED_GAMMA) < _TOLERANCE else _power(1 / gamma)
    is_srgb = np.allclose(primaries, SRGB, atol=_TOLERANCE)
    return None if is_srgb and curve is _SRGB_CURVE else _profile(SRGB if is_srgb else primaries, curve)


def _coded(primaries: int, transfer: int) -> bytes | None:
    """Return what code points of H.273 stand for; unknown ones state nothing."""
    if transfer in _HDR:
        raise LostRowError(Cause.UNSUPPORTED_FORMAT)
    curve = _power(1.0) if transfer == _LINEAR else _SRGB_CURVE
    if primaries == 1 or primaries in _PRIMARIES:
        return _profile(_PRIMARIES.get(primaries, SRGB), curve)
    return None


def _power(exponent: float) -> bytes:
    return b"para\0\0\0\0\0\0\0\0" + struct.pack(">i", round(65536 * exponent))


@cache
def _profile(primaries: tuple[float, ...], curve: bytes) -> bytes | None:
    """Return an ICC profile; None where the primaries are none."""
    colours = np.array([[x, y, 1 - x - y] for x, y in zip(primaries[::2], primaries[1::2], strict=True)])
    if not (colours[:, 1] > 0).all() or abs(np.linalg.det(colours[1:])) < _TOLERANCE / 10:
        return None
    white = colours[0] / colours[0, 1]
    to_xyz = colours[1:].T * np.linalg.solve(colours[1:].T, white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD @ to_xyz
    tags = {
        b"desc": _text("stated in numbers"),
        b"cprt": _text("none"),
        b"wtpt": _xyz(_D50),
        **{name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s", offset + len(body), b"none", 0x04400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (head + bytes(28) + _xyz(_D50)[8:]).ljust(128, b"\0") + table + body


def _xyz(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * float(value))) for value in values)


def _text(words: str) -> bytes:
    content = words.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(content), 28) + content
