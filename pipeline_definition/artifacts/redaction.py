"""Cuts credentials and signed addresses out of what a run leaves behind.

Everything that looks like one is removed, in any place: an artifacts folder is made to be shared.
"""

from __future__ import annotations

import re
from typing import Any, Final

REMOVED: Final = "[removed]"

_SECRET_NAME: Final = (
    r"(?:secret_?access_?key|secret|(?:session|security|access|api|auth)_?token|password|passwd|api_?key)"
)
_NAMED: Final = re.compile(rf"(?i){_SECRET_NAME}$|^token$|^authorization$")

_PATTERNS: Final = (
    # Presigned S3 and CloudFront addresses, and shared access signatures.
    (
        re.compile(r"\?[^\s\"'<>]*(?:X-Amz-Signature|X-Amz-Credential|Signature|AWSAccessKeyId|sig)=[^\s\"'<>]*"),
        f"?{REMOVED}",
    ),
    # user:password@ in an address.
    (re.compile(r"://[^/\s:@\"']+:[^/\s@\"']+@"), f"://{REMOVED}@"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), REMOVED),
    (re.compile(r"(?i)(\bauthorization\"?\s*[=:]\s*).+"), rf"\1{REMOVED}"),
    (re.compile(rf"(?i)({_SECRET_NAME}[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+"), rf"\1{REMOVED}"),
)


def redacted(value: Any) -> Any:
    """Return a JSON value without credentials; the shape stays."""
    if isinstance(value, str):
        for pattern, replacement in _PATTERNS:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        secret = {key for key, item in value.items() if item and isinstance(item, str) and _NAMED.search(str(key))}
        return {key: REMOVED if key in secret else redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return value
