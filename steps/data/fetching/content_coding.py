"""Undoes the Content-Encoding of an answer, bounded: a few kilobytes may unpack to gigabytes.

A receiver undoes gzip and deflate whether it asked for them or not (RFC 9110, 8.4.1). Other codings, which nobody asked
for, are not undone; a name that is no coding (servers say `none`, `binary` or `utf-8`) changes nothing.
"""

from __future__ import annotations

import zlib
from typing import Final

from steps.data.causes import Cause, FetchError
from steps.data.pictures.picture_format import format_of

MAX_CODINGS: Final = 3
_UNDONE: Final = frozenset({"gzip", "x-gzip", "deflate"})
_NOT_UNDONE: Final = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_RAW: Final = -zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"


def decoded(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """Return the body without the codings that the header names. Raises FetchError."""
    codings = [name.strip().lower() for name in content_encoding.split(",")]
    codings = [name for name in codings if name in _UNDONE | _NOT_UNDONE]
    if len(codings) > MAX_CODINGS:
        raise FetchError(Cause.BAD_RESPONSE)
    for name in reversed(codings):
        if name in _UNDONE:
            body = _unpacked(body, name, max_bytes)
        elif format_of(body) is None:
            raise FetchError(Cause.BAD_RESPONSE)
    return body


def _unpacked(body: bytes, coding: str, max_bytes: int) -> bytes:
    # `deflate` means zlib's format (RFC 9110, 8.4.1.2), and some servers send the bare stream.
    bare = coding == "deflate" and (len(body) < 2 or body[0] & 15 != 8 or int.from_bytes(body[:2], "big") % 31)
    content = b""
    while True:
        unpacker = zlib.decompressobj(_RAW if bare else _GZIP_OR_ZLIB)
        try:
            content += unpacker.decompress(body, max_bytes + 1 - len(content))
        except zlib.error:
            raise FetchError(Cause.BAD_RESPONSE) from None
        if len(content) > max_bytes:
            raise FetchError(Cause.BODY_TOO_LARGE)
        if not unpacker.eof:
            raise FetchError(Cause.TRUNCATED)
        body = unpacker.unused_data
        # A gzip file may have several members (RFC 1952, 2.2); other bytes behind the end are ignored.
        if not body.startswith(_GZIP_MAGIC):
            return content
