"""What a picture's bytes say about it before a decoder sees it: its format, and whether its end is there.

The fewer formats reach a decoder, the less of it a hostile file can reach. HEIC and JPEG XL are read where their
extras are installed (`pip install sd-pipeline[heic,jxl]`).
"""

import importlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Final

from steps.data.causes import Cause
from steps.data.pictures.jpeg import EOI, START_OF_SCAN, jpeg_structure

_CODESTREAM: Final = b"\xff\x4f\xff\x51"
# With what a file of each format begins, by Pillow's names.
_STARTS: Final = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "JPEG2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", _CODESTREAM),
    "JXL": (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"),
}
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
# Of the ftyp box (ISO/IEC 14496-12), the first brand and those that it is compatible with.
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"})
# Pictures that nothing here decodes: drawings, layered files, raw data, and what few have.
_OTHERS = re.compile(
    rb"8BPS|%PDF|%!PS|\x00\x00[\x01\x02]\x00|gimp xcf|\x76\x2f\x31\x01|#\?RADIANCE|qoif|DDS |II\xbc|FLIF|BPG\xfb"
    rb"|P[1-7][\s]|FUJIFILMCCD-RAW|AT&TFORM|\x0a[\x00-\x05]\x01[\x01\x02\x04\x08]|\xd7\xcd\xc6\x9a"
    rb"|\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE svg[^>]*>\s*)?<(?:\w+:)?svg[\s/>]",
    re.DOTALL,
)
_PROLOGUE_BYTES: Final = 4096

# Pillow's names, and the module and its function that teach Pillow the format.
_PLUGINS: Final = {"HEIF": ("pillow_heif", "register_heif_opener"), "JXL": ("pillow_jxl", None)}


def format_of(content: bytes) -> str | None:
    """Return Pillow's name of a picture's format, `other` for one that nothing here reads, or None for no picture."""
    for name, starts in _STARTS.items():
        if content.startswith(starts):
            return name
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    if content.startswith(b"BM") and int.from_bytes(content[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if content[4:8] == b"ftyp":
        return _format_of_brands(content)
    return "other" if _OTHERS.match(content[:_PROLOGUE_BYTES].removeprefix(b"\xef\xbb\xbf")) else None


def _format_of_brands(content: bytes) -> str | None:
    size = int.from_bytes(content[:4], "big")
    brands = {content[8:12], *(content[start : start + 4] for start in range(16, min(size, 256), 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIC_BRANDS else None


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that this installation reads, by Pillow's names."""
    names = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "JPEG2000"]
    for name, (module, register) in _PLUGINS.items():
        with suppress(ImportError):
            plugin = importlib.import_module(module)
            if register is not None:
                getattr(plugin, register)()
            names.append(name)
    return tuple(names)


def refusal(content: bytes) -> Cause | None:
    """Return why a body is nothing to be decoded, or None."""
    name = format_of(content)
    if name is None:
        return Cause.NOT_A_PICTURE
    return None if name in formats() else Cause.UNSUPPORTED_FORMAT


def _boxes_are_cut(content: bytes) -> bool:
    """Return whether a box of an ISO media file, or of JPEG 2000, ends behind the end of the file."""
    if content.startswith(_CODESTREAM):
        return not content.rstrip(b"\x00").endswith(b"\xff\xd9")
    position = 0
    while position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(content[position + 8 : position + 16], "big")
        if size < 8:
            return False
        position += size
    return position > len(content)


_IS_CUT: Final[Mapping[str | None, Callable[[bytes], bool]]] = {
    # A marker behind the last scan is the end; else the end may still stand before something that has both.
    "JPEG": lambda file: file.rfind(EOI) <= file.rfind(START_OF_SCAN) and jpeg_structure(file).end is None,
    "PNG": lambda file: file.rfind(b"IEND") < 0,
    "WEBP": lambda file: int.from_bytes(file[4:8], "little") + 8 > len(file) + 1,
    "GIF": lambda file: b";" not in file[-64:],
    "BMP": lambda file: int.from_bytes(file[2:6], "little") > len(file),
    **dict.fromkeys(("AVIF", "HEIF", "JPEG2000"), _boxes_are_cut),
}


def is_cut(content: bytes) -> bool:
    """Return whether a picture's end is not there: it may have been cut off, or merely be written so."""
    is_cut_as = _IS_CUT.get(format_of(content))
    return is_cut_as is not None and is_cut_as(content)
