"""What the reader measures of each picture that it keeps: columns of the table of samples, counts for the ledger."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from steps.data.pictures.perceptual_hash import COLOUR_BYTES

READER_VERSION: Final = 2
"""Raised when it makes other bytes of the same picture. 1 was img2dataset's own resizer."""


@dataclass(frozen=True)
class PictureMeasures:
    """One kept picture, beside its sizes and its sha256. Each field is a column of NNNNN.samples.parquet."""

    format: str
    orientation: int
    profile: str | None
    """How its ICC profile calls itself; None: it has none."""
    profile_ignored: bool
    """Whether the profile was broken, so that the numbers were taken for sRGB's."""
    has_alpha: bool
    """Whether something of it was transparent, and lies on white."""
    is_animated: bool
    is_upscaled: bool
    """Whether its shorter side was below the stored one."""
    perceptual_hash: int | None
    """Of what is seen (steps.data.pictures.perceptual_hash); None where it is flat."""
    colour_layout: bytes


# Of the fields that are not true or false.
_TYPES: Final = {
    "format": pa.string(),
    "orientation": pa.int8(),
    "profile": pa.string(),
    "perceptual_hash": pa.uint64(),
    "colour_layout": pa.binary(COLOUR_BYTES),
}


def measures_columns(measured: Sequence[PictureMeasures | None]) -> dict[str, Any]:
    """Return a column for each field; null where a sample was not measured."""
    return {
        name: pa.array([one and getattr(one, name) for one in measured], _TYPES.get(name, pa.bool_()))
        for name in PictureMeasures.__dataclass_fields__
    }


def treatments(measured: Iterable[PictureMeasures | None]) -> dict[str, int]:
    """Count what was done to pictures before they were stored; without what was done to none."""
    counts: Counter[str] = Counter()
    for one in measured:
        if one is not None:
            counts["turned_upright"] += one.orientation != 1
            counts["profile_ignored"] += one.profile_ignored
            counts["laid_on_white"] += one.has_alpha
            counts["first_frame"] += one.is_animated
            counts["upscaled"] += one.is_upscaled
    return {name: count for name, count in sorted(counts.items()) if count}
