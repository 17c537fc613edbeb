"""Cuts credentials and signed addresses out of what a run leaves behind.

What looks like one goes, wherever it stands: an artifacts folder is made to be passed on.
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
        return _without_secrets(value)
    if isinstance(value, dict):
        return {key: REMOVED if _is_secret(key, item) else redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return value


def _without_secrets(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _is_secret(key: object, value: object) -> bool:
    return isinstance(value, str) and bool(value) and _NAMED.search(str(key)) is not None
