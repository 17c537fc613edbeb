"""ISO 8601 durations, as CacheConfig.ExpireAfter gives them: P30D, PT12H, P1W."""

from __future__ import annotations

import re

from pipeline_definition.local.errors import DefinitionError

_DAY_S = 86_400.0
_DURATION = re.compile(
    r"P(?=\d|T\d)(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
_SECONDS = {
    "years": 365 * _DAY_S,
    "months": 30 * _DAY_S,
    "weeks": 7 * _DAY_S,
    "days": _DAY_S,
    "hours": 3600.0,
    "minutes": 60.0,
    "seconds": 1.0,
}


def parse_duration_s(text: str) -> float:
    """Return a duration in seconds; a year counts 365 days, a month 30.

    Raises DefinitionError for anything else.
    """
    match = _DURATION.fullmatch(str(text))
    if not match:
        raise DefinitionError(f"{text!r} is not an ISO 8601 duration such as P30D or PT12H")
    return sum(_SECONDS[unit] * int(count) for unit, count in match.groupdict().items() if count)
