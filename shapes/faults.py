"""The faults that the web has, and how many rows of the url table meet each.

Reads nothing, writes nothing. A row meets a fault by the first part of its address: /missing/00012.jpg is the picture
/pictures/00012.jpg as a dead link.
"""

from dataclasses import dataclass
from typing import Final

PICTURES: Final = "pictures"


@dataclass(frozen=True)
class Fault:
    name: str
    """First part of the address."""
    share: float
    """Share of the rows: dead links lead, as they do in LAION's lists."""
    kept: bool
    """Whether a careful download ends with the picture, which is whether the row counts as a sample."""
    meaning: str
    has_files: bool = False
    """Whether its pictures are files of their own, in a folder of its name."""


FAULTS: Final = (
    Fault("missing", 0.012, False, "404"),
    Fault("corrupt", 0.002, False, "200, image/jpeg, but the bytes are no picture", has_files=True),
    Fault("slow", 0.001, False, "a few bytes at a time, for longer than a download should wait"),
    Fault("small", 0.002, False, "a picture of 24 x 24 px, below the minimum size", has_files=True),
    Fault("noai", 0.001, False, "X-Robots-Tag: noai, the owner's wish to be left out of training"),
    Fault("copy", 0.002, True, "the same picture at a second address: kept, unless duplicates are filtered"),
    Fault("redirect", 0.001, True, "302 to the picture"),
    Fault("flaky", 0.001, True, "500 the first time, the picture from then on"),
)
NAMES: Final = tuple(fault.name for fault in FAULTS)


def counts(rows: int) -> dict[str, int]:
    """Return how many of `rows` rows meet each fault: 88 of 4,000, and at least one of each in any table."""
    return {fault.name: max(1, round(fault.share * rows)) for fault in FAULTS}
