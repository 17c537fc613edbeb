"""Numbers, times and sizes as people read them."""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

DASH = "–"
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything else: a missing or broken figure hides its row."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        converted = float(value)
    except ValueError:
        return None
    return converted if math.isfinite(converted) else None


def figure(value: float, digits: int = 3) -> str:
    """Return a measured number with this many significant digits, in powers of ten only where it is tiny."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def beside(value: float, other: float) -> str:
    """Return a measured number with as many decimals as `figure` gives `other`, with which it is compared."""
    decimals = len(figure(other).partition(".")[2]) if "e" not in figure(other) else 4
    return f"{value:,.{decimals}f}"


def setting(value: float) -> str:
    """Return a chosen number in its shortest form: 25, 0.6, 0.00134."""
    text = figure(value, 4)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def count(value: float) -> str:
    """Return a whole number with thousands separators."""
    return f"{value:,.0f}"


def short_count(value: float, _position: object = None) -> str:
    """Return 51.2k or 1.13B; the second argument is the one that chart axes pass."""
    for size, unit in _UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.4g}"


def short_dollars(value: float, _position: object = None) -> str:
    """Return $51.2k or -$1.13B; the second argument is the one that chart axes pass."""
    return f"-${short_count(-value)}" if value < 0 else f"${short_count(value)}"


def percent(fraction: float) -> str:
    """Return 97.3 %."""
    value = 100 * fraction
    return f"{value:.0f} %" if value in (0, 100) else f"{value:.1f} %"


def duration(seconds: float) -> str:
    """Return 0.4 s, 43 s, 12 min 34 s, 3 h 05 min or 2 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def dollars(value: float) -> str:
    """Return $0.42, $39.50 or -$39,511; less than a cent is <$0.01."""
    if value < 0:
        return f"-{dollars(-value)}"
    if 0 < value < 0.01:
        return "<$0.01"
    return f"${value:,.0f}" if value >= 1000 else f"${value:,.2f}"


def size(value: float) -> str:
    """Return bytes in decimal units."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f} bytes"


def moment(text: Any) -> datetime | None:
    """Return an ISO 8601 time in UTC, or None."""
    try:
        value = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def date(value: datetime) -> str:
    """Return 24 November 2026, 02:17 UTC."""
    return f"{value.day} {value:%B %Y, %H:%M} UTC"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (`uses › 1 › name`, its text) for each value inside dictionaries, and lists of them."""
    items: Iterable[tuple[object, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = enumerate(value, 1)
    else:
        yield name, plain(value)
    for key, item in items:
        yield from leaves(item, " › ".join(filter(None, (name, str(key).replace("_", " ")))))


def plain(value: Any) -> str:
    """Return any JSON value as one line of text."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return setting(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value)
