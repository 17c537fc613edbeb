"""A deadline and a budget as people write them. Reads nothing but the clock, writes nothing."""

import math
import re
from datetime import datetime, timedelta

from pipeline_definition.cost.training import HOURS_PER_DAY, CostError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([hdw])")
_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONEY = re.compile(r"(us\$|\$|€|£)?\s*(\d[\d,_ ]*(?:\.\d+)?)\s*([km]?)\s*([a-z]{3})?")
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6}
_SIGNS = {"€": "eur", "£": "gbp", "$": "usd", "us$": "usd"}
DEADLINE_FORM = "write it as 36h, 10d, 2w, Friday or 2027-01-31 (to the end of that day)"
BUDGET_FORM = "write it as 40000, $5,000,000, 5M or `40k EUR` with --exchange-rate"


def parse_days(text: str, now: datetime) -> float:
    """Return the days of `36h`, `10d` or `2w`, or from now to the end of a weekday or of a date."""
    asked = text.strip().lower()
    if match := _DURATION.fullmatch(asked):
        days = float(match[1]) * _HOURS[match[2]] / HOURS_PER_DAY
    else:
        days = (_end_of(asked, text, now) - now) / timedelta(days=1)
    if not 0 < days < math.inf:
        raise CostError(f"--deadline {text}: it is past, or no time at all; {DEADLINE_FORM}")
    return days


def _end_of(asked: str, text: str, now: datetime) -> datetime:
    """Return the midnight after a date, or after the next weekday of that name; today's is today."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = [number for number, name in enumerate(_WEEKDAYS) if len(asked) >= 3 and name.startswith(asked)]
    if named:
        return midnight + timedelta(days=(named[0] - now.weekday()) % 7 + 1)
    try:
        return datetime.fromisoformat(asked).replace(hour=0, minute=0, tzinfo=now.tzinfo) + timedelta(days=1)
    except ValueError:
        raise CostError(f"--deadline {text}: {DEADLINE_FORM}") from None


def parse_usd(text: str, exchange_rate: float | None = None) -> float:
    """Return the dollars of `40000`, `$5,000,000`, `5M` or `40k EUR`; `exchange_rate`: dollars for one unit."""
    match = _MONEY.fullmatch(text.strip().lower())
    amount = float(re.sub(r"[,_ ]", "", match[2])) * _FACTORS[match[3]] if match else 0.0
    if match is None or not 0 < amount < math.inf:
        raise CostError(f"--budget {text}: {BUDGET_FORM}")
    stated = {_SIGNS.get(match[1] or ""), match[4]} - {None}
    if len(stated) > 1:
        raise CostError(f"--budget {text}: it names two currencies; {BUDGET_FORM}")
    currency = (stated or {"usd"}).pop()
    if currency == "usd":
        return amount
    if exchange_rate is None:
        name = str(currency).upper()
        raise CostError(f"--budget {text}: say with --exchange-rate how many dollars one {name} is")
    return amount * exchange_rate
