"""A clock that jumps, in every Python process that has this folder in its path: a day ahead, a day back, now and then.

What measures durations with it goes wrong; what uses the monotonic clock does not notice.
"""

import time

DAY_S = 86_400.0
PERIOD_S = 3.0

_time, _monotonic = time.time, time.monotonic


def jumping() -> float:
    """Return the time of day, off by a day for one period in three each way."""
    return _time() + DAY_S * (int(_monotonic() / PERIOD_S) % 3 - 1)


time.time = jumping
