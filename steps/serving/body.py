"""Reading a request's body: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request

from steps.serving.errors import ApiError, ClientGoneError

# SageMaker passes on at most 25 MB: so much of a refused body is read and thrown away, since a client that is still
# sending when the connection closes never sees the answer.
MAX_DISCARDED_BYTES: Final = 26_214_400


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Return the body.

    Raises ApiError 413 above `max_bytes`, 408 after `timeout_s`, and ClientGoneError when the client leaves.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(request, max_bytes)
    except TimeoutError:
        message = f"the body did not arrive within {timeout_s:g} s"
        raise ApiError(408, message, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ClientGoneError from None


async def gone(request: Request) -> None:
    """Return when the client has closed its connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request, max_bytes: int) -> bytes:
    body, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= max_bytes:
            body += part
        elif size > MAX_DISCARDED_BYTES:
            break
    if size > max_bytes:
        headers = {"Connection": "close"} if size > MAX_DISCARDED_BYTES else {}
        raise ApiError(413, f"the body is larger than {max_bytes} bytes", headers=headers)
    return bytes(body)
