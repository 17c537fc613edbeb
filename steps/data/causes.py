"""Why a row of the url table did not become a sample: the names that the ledger counts under."""

from enum import StrEnum
from http import HTTPStatus
from typing import Final

from params.filters import FILTERS
from params.filters.published import AspectRatio, TooSmall


class Cause(StrEnum):
    """One fate of a row. Filters have causes of their own; a status that is not 200 is counted as `http_<status>`."""

    NO_URL = "no_url"
    NO_CAPTION = "no_caption"
    """The caption is empty or missing."""
    BAD_ROW = "bad_row"
    """The row cannot be read: too many or too few fields, a quote that does not end, or no JSON object."""
    BAD_TEXT = "bad_text"
    """Url or caption is no text: not UTF-8, half a surrogate pair, with a zero, an object, or too long."""
    REFUSED_SCHEME = "refused_scheme"
    """Neither http nor https, or not a url at all."""
    REFUSED_ADDRESS = "refused_address"
    """The host resolves to an address that is not public."""
    TOO_MANY_REDIRECTS = "too_many_redirects"
    NO_ADDRESS = "no_address"
    NO_CONNECTION = "no_connection"
    """Refused, reset or unreachable."""
    BAD_CERTIFICATE = "bad_certificate"
    TIMEOUT = "timeout"
    """Not all there in time."""
    BAD_RESPONSE = "bad_response"
    """Not HTTP, or cut off inside the headers."""
    DISALLOWED = "disallowed"
    """The answer says that pictures are not to be learnt from (steps.data.fetching.opt_outs)."""
    BODY_TOO_LARGE = "body_too_large"
    TRUNCATED = "truncated"
    """The body or the picture ends too early."""
    NOT_A_PICTURE = "not_a_picture"
    """No format that is known."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """A picture, but of a format that nothing here decodes."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """It would decode to more pixels than the limit."""
    CORRUPT = "corrupt"
    """It is damaged inside, or its last scans are missing."""
    HASH_MISMATCH = "hash_mismatch"
    """Its bytes are not those that the table has the hash of."""
    BAD_BOXES = "bad_boxes"
    """What the table says is to be blurred is not a list of boxes."""
    MISSING = "missing"
    """The file that a row names is not there."""
    UNEXPECTED = "unexpected"
    """An error that this code does not know; it is printed."""

    DUPLICATE = "duplicate"
    """The url stands further up in the table, in a row that no filter takes out."""
    NOT_IN_TABLE = "not_in_table"
    """A sample whose row, address and caption, no longer stands in the table; it is no row's fate."""
    DUPLICATE_PICTURE = "duplicate_picture"
    """An earlier sample has the same bytes."""
    NEAR_DUPLICATE = "near_duplicate"
    BLOCKED_HOST = "blocked_host"
    """The blocklist names the host, or one that it redirects to."""
    BLOCKED_PICTURE = "blocked_picture"
    """The blocklist has the picture's hash."""


class LostRowError(Exception):
    """A row becomes no sample; the cause is one of these, a filter's, or `http_<status>`."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = str(cause)


class FetchError(LostRowError):
    """The picture was not fetched."""


LEFT_OUT: Final = frozenset([*list(Cause)[list(Cause).index(Cause.DUPLICATE) :], *(one.cause for one in FILTERS)])
"""Causes by which a row is left out on purpose; the others are failures."""

_PASSING = frozenset({Cause.TIMEOUT, Cause.NO_CONNECTION, Cause.NO_ADDRESS, Cause.TRUNCATED, Cause.BAD_RESPONSE})
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUSES = {int(status) for status in HTTPStatus}

# img2dataset's own words (resizer.py), and OpenCV's.
_RESIZER_WORDS = {
    "image too small": TooSmall.cause,
    "image area too large": Cause.TOO_MANY_PIXELS,
    "aspect ratio too large": AspectRatio.cause,
    "CV_IO_MAX_IMAGE": Cause.TOO_MANY_PIXELS,
}


def from_status(status: int) -> str:
    """Return the name for an HTTP status; one outside the standard's is a bad response."""
    return f"http_{status}" if status in _STATUSES else Cause.BAD_RESPONSE.value


def from_message(message: str) -> str:
    """Return the name for an error message of the statistics: fetching speaks in causes, the resizer in words."""
    if message in set(Cause) | LEFT_OUT or message.startswith("http_"):
        return message
    return str(next((cause for words, cause in _RESIZER_WORDS.items() if words in message), Cause.CORRUPT))


def can_pass(cause: str) -> bool:
    """Return whether a row that failed by this cause may succeed at another time."""
    name, _, status = cause.partition("_")
    return cause in _PASSING or (name == "http" and int(status) in _PASSING_STATUSES)
