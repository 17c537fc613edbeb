"""The settings by which a row is refused while it is fetched: a laxer limit fetches its rows again, and these alone."""

from collections.abc import Mapping
from typing import Any

from params.filters.published import AspectRatio, TooSmall
from params.programs import DownloadSettings
from steps.data.causes import Cause
from steps.data.shards.blocklist import Blocklist

Limits = Mapping[str, Any]
"""By the cause that they refuse under: a number that is laxer the larger it is, or a list that is the longer the laxer,
or a digest of which any other may be laxer. Fit for JSON."""


def limits_of(settings: DownloadSettings, blocklist: Blocklist) -> dict[str, Any]:
    blocked = [blocklist.digest, blocklist.max_distance if blocklist.digest else 0]
    return {
        TooSmall.cause: -TooSmall.from_settings(settings).least_px,
        AspectRatio.cause: AspectRatio.from_settings(settings).max_aspect_ratio,
        Cause.BODY_TOO_LARGE.value: settings.max_body_mb,
        Cause.TOO_MANY_PIXELS.value: settings.max_image_megapixels,
        Cause.DISALLOWED.value: sorted(settings.ignored_opt_outs),
        Cause.HASH_MISMATCH.value: settings.verify_hash,
        Cause.BLOCKED_HOST.value: str(blocked),
        Cause.BLOCKED_PICTURE.value: str(blocked),
    }


def laxer(now: Limits, before: Limits) -> frozenset[str]:
    """Return the causes under which rows were refused that may pass now."""
    return frozenset(cause for cause, limit in now.items() if _is_laxer(limit, before.get(cause, limit)))


def _is_laxer(now: Any, before: Any) -> bool:
    if isinstance(now, list):
        return bool(set(now) - set(before))
    return bool(now != before) if isinstance(now, str) else bool(now > before)
