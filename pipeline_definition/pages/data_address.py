"""Pictures inside a page, so that it needs no other file."""

from __future__ import annotations

import base64


def data_address(content: bytes, form: str = "png") -> str:
    """Return a picture's bytes as a data: address (RFC 2397); `form` is its image subtype."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode('ascii')}"
