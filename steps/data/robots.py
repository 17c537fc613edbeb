"""Whether an answer's X-Robots-Tag headers forbid to learn from the picture.

img2dataset takes everything before the first colon for a crawler's name, so that `unavailable_after: ..., noai` is
downloaded. Format: https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag#xrobotstag
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# img2dataset's default (https://github.com/rom1504/img2dataset#opt-out-directives).
DISALLOWED: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex"})

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_NAME = re.compile(r"[a-z0-9_.*/-]+")


def is_disallowed(headers: Iterable[str], crawler: str) -> bool:
    """Return whether any header forbids it, to everyone or to `crawler` (lower case)."""
    return any(DISALLOWED & _directives(header.lower(), crawler) for header in headers)


def _directives(header: str, crawler: str) -> set[str]:
    """Return the directives that apply to the crawler: those that stand after another crawler's name do not."""
    directives, applies = set(), True
    for part in header.split(","):
        name, colon, rest = (piece.strip() for piece in part.partition(":"))
        # A date may hold commas and colons; no crawler's name holds blanks.
        if colon and name not in _WITH_VALUE and _NAME.fullmatch(name):
            applies, name = name in (crawler, "*"), rest
        if applies:
            directives.add(name)
    return directives
