"""Whether an answer's headers say that the picture is not to be learnt from.

    X-Robots-Tag      noai, noimageai, noml; noindex, noimageindex and none, as img2dataset has them
    TDM-Reservation   1: text and data mining is reserved (TDMRep, W3C community group report; Art. 4(3) of Directive
                      (EU) 2019/790)
    Content-Usage     train-ai=n, or n for what holds it (IETF aipref, draft-ietf-aipref-attach and -vocab)
    Content-Signal    ai-train=no (contentsignals.org)

img2dataset takes everything before the first colon of X-Robots-Tag for a crawler's name, so that
`unavailable_after: ..., noai` is downloaded. Format:
https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag#xrobotstag
"""

import re
from collections.abc import Collection, Iterable
from email.message import Message
from typing import Final

# img2dataset's default (https://github.com/rom1504/img2dataset#opt-out-directives), and what means the same.
DISALLOWED: Final = frozenset({"noai", "noimageai", "noml", "noimageml", "noindex", "noimageindex", "none"})
# Categories of use that hold the training of a generative model, from the narrowest: the narrowest one that is stated
# decides.
_USAGES: Final = ("train-genai", "genai", "train-ai", "ai", "tdm", "bots", "all")
_EVERYONE: Final = frozenset({"*", "robots"})
# TDMRep knows 1 and 0; these say the same.
_RESERVED: Final = frozenset({"1", "true", "?1", "yes"})

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_BLANKS_AND_QUOTES: Final = " \t\"'"
_NAME = re.compile(r"[a-z0-9_.*/-]+")


def is_reserved(headers: Message, crawler: str, ignored: Collection[str] = ()) -> bool:
    """Return whether any header, but for the ignored ones (in lower case), forbids it to everyone or to `crawler`."""

    def stated(name: str) -> list[str]:
        return [] if name in ignored else [str(value).lower() for value in headers.get_all(name, [])]

    values = ",".join(stated("tdm-reservation")).split(",")
    mining = (value.partition(";")[0].strip(_BLANKS_AND_QUOTES) for value in values)
    usage = _members(stated("content-usage"))
    return (
        any(DISALLOWED & _directives(header, crawler) for header in stated("x-robots-tag"))
        or not _RESERVED.isdisjoint(mining)
        or next((usage[one] == "n" for one in _USAGES if one in usage), False)
        or _members(stated("content-signal")).get("ai-train") == "no"
    )


def _directives(header: str, crawler: str) -> set[str]:
    """Return the directives that apply to the crawler: those that stand after another crawler's name do not."""
    directives, applies = set(), True
    for part in re.split("[,;]", header):
        name, colon, rest = (piece.strip(_BLANKS_AND_QUOTES) for piece in part.partition(":"))
        # A date may hold commas and colons; no crawler's name holds blanks.
        if colon and name not in _WITH_VALUE and _NAME.fullmatch(name):
            applies, name = name == crawler or name in _EVERYONE, rest
        if applies:
            directives.add(name)
    return directives


def _members(headers: Iterable[str]) -> dict[str, str]:
    """Return the members of a dictionary (RFC 9651, 3.2), and their parameters: some servers put `;` for `,`."""
    members = {}
    for part in re.split("[,;]", ",".join(headers)):
        name, _, value = part.partition("=")
        members[name.strip(_BLANKS_AND_QUOTES)] = value.strip(_BLANKS_AND_QUOTES)
    return members
