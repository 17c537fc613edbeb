"""Content-Type in, Accept out (RFC 9110, sections 8.3 and 12.5.1)."""

import math
from collections.abc import Sequence
from typing import Final, get_args

from steps.serving.errors import ApiError
from steps.serving.schema import GenerationRequest, PictureFormat

JSON: Final = "application/json"
# None at all; that of bytes, here and in S3; JumpStart's own.
GENERIC: Final = ("", "application/octet-stream", "binary/octet-stream", "application/x-text")
PICTURE_FORMATS: Final[tuple[PictureFormat, ...]] = get_args(PictureFormat)


def check_content_type(content_type: str | None, content_encoding: str | None) -> None:
    """Raise 415 unless the body may be plain JSON in UTF-8: SageMaker's own clients often say nothing about it."""
    kind, *parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    if kind not in (JSON, *GENERIC):
        raise ApiError(415, f"Content-Type: the body must be {JSON}")
    if any(part.startswith("charset=") and part[8:].strip('"') not in ("utf-8", "utf8") for part in parameters):
        raise ApiError(415, "Content-Type: the body must be in UTF-8")
    if (content_encoding or "identity").strip().lower() != "identity":
        raise ApiError(415, "Content-Encoding: the body must not be compressed")


def choose(accept: str, request: GenerationRequest) -> str:
    """Return the answer's media type: a single picture as itself unless JSON is preferred. Raises 406 if none fits."""
    formats = PICTURE_FORMATS if request.format is None else (request.format,)
    offers = [f"image/{name}" for name in formats] if len(request.texts) == 1 else []
    offers.append(JSON)
    ranges = _ranges(accept)
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if _quality(best, ranges) <= 0:
        raise ApiError(406, f"Accept: this request can be answered with {' or '.join(offers)}")
    return best


def picture_format(media_type: str, request: GenerationRequest) -> PictureFormat:
    """Return the format of the picture files in an answer of this media type."""
    named = [name for name in PICTURE_FORMATS if media_type == f"image/{name}"]
    return named[0] if named else request.format or "png"


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Split `image/webp;q=0.8, */*` into media ranges and their qualities."""
    ranges = []
    for part in accept.lower().split(","):
        media, *parameters = [word.strip() for word in part.split(";")]
        qualities = [word[2:] for word in parameters if word.startswith("q=")]
        ranges.append(("image/jpeg" if media == "image/jpg" else media, _number(qualities)))
    return ranges


def _number(qualities: Sequence[str]) -> float:
    try:
        quality = float(qualities[0]) if qualities else 1.0
    except ValueError:
        return 0.0
    return quality if math.isfinite(quality) else 0.0


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that covers the offer."""
    for covering in (offer, offer.split("/")[0] + "/*", "*/*"):
        qualities = [quality for media, quality in ranges if media == covering]
        if qualities:
            return max(qualities)
    return 0.0
