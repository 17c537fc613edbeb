import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from steps.serving import app
from steps.serving.app import read_body
from steps.serving.errors import ApiError, ClientGoneError


def request(*parts: bytes | float | None) -> Request:
    """Return a request whose body arrives in these parts; a number is a pause in seconds, None a disconnect."""
    queue = list(parts)

    async def receive() -> dict[str, Any]:
        while queue and isinstance(queue[0], float):
            await asyncio.sleep(queue.pop(0))  # type: ignore[arg-type]
        if not queue:
            return {"type": "http.request", "body": b"", "more_body": False}
        part = queue.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": True}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def read(*parts: bytes | float | None, max_bytes: int = 10, timeout_s: float = 5.0) -> bytes:
    return asyncio.run(read_body(request(*parts), max_bytes, timeout_s))


def test_a_body_in_parts_is_put_together() -> None:
    assert read(b"hello", b"", b"world") == b"helloworld"


def test_a_larger_body_is_read_to_its_end_and_refused() -> None:
    with pytest.raises(ApiError, match="10 bytes") as caught:
        read(b"a" * 8, b"a" * 8)
    assert (caught.value.status, caught.value.headers) == (413, {})


def test_an_endless_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_DISCARDED_BYTES", 100)
    with pytest.raises(ApiError) as caught:
        read(*[b"a" * 8] * 1000)
    assert (caught.value.status, caught.value.headers) == (413, {"Connection": "close"})


def test_a_slow_body_is_given_up() -> None:
    with pytest.raises(ApiError) as caught:
        read(b"a", 5.0, b"b", timeout_s=0.05)
    assert caught.value.status == 408


def test_a_client_that_leaves_before_the_end_is_gone() -> None:
    with pytest.raises(ClientGoneError):
        read(b"a", None)
