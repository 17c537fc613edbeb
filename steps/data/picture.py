"""What the first and last bytes say about a picture, before a decoder sees it.

A decoder fills a truncated JPEG with grey and calls it a success; and the fewer formats reach the decoder, the less of
it a hostile file can reach.
"""

from __future__ import annotations

from steps.data.causes import Cause

_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


def refusal(content: bytes) -> Cause | None:
    """Return why a body is not a whole picture, or None."""
    if content.startswith(b"\xff\xd8\xff"):
        # Markers cannot stand in a scan's data, where 0xff is stuffed: a whole picture ends after its last scan.
        whole = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN) >= 0
    elif content.startswith(b"\x89PNG\r\n\x1a\n"):
        whole = content.rfind(b"IEND") >= 0
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        whole = int.from_bytes(content[4:8], "little") + 8 <= len(content) + 1
    elif content.startswith((b"GIF87a", b"GIF89a")):
        whole = content.rstrip(b"\x00").endswith(b";")
    elif content.startswith(b"BM"):
        whole = int.from_bytes(content[2:6], "little") <= len(content)
    else:
        return Cause.NOT_A_PICTURE
    return None if whole else Cause.TRUNCATED
