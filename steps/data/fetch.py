"""Fetches one picture from a hostile web: bounded in address, redirects, time and bytes.

Reads http(s) and nothing else; environment proxies are ignored, since behind one the address that is connected to
could not be judged.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from steps.data.address import AddressGuard, BlockedHostError, RefusedAddressError
from steps.data.causes import Cause, can_pass, from_status
from steps.data.picture import refusal
from steps.data.robots import is_disallowed

CRAWLER: Final = "sd-pipeline"
MAX_REDIRECTS: Final = 5
READ_BYTES: Final = 1 << 18
BACK_OFF_S: Final = 0.5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchError(Exception):
    """The picture was not fetched."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = str(cause)
        """A name of steps.data.causes."""


@dataclass(frozen=True)
class FetchLimits:
    """What one picture may cost."""

    timeout_s: float
    """From connect to the last byte, redirects included; for each try."""
    retries: int
    """Further tries after a failure that can pass, each after twice the wait of the one before."""
    max_body_bytes: int
    """A larger body is dropped."""


class Fetcher:
    """Fetches pictures. Safe for threads."""

    def __init__(self, limits: FetchLimits, guard: AddressGuard) -> None:
        self._limits, self._guard = limits, guard

    def fetch(self, url: str) -> bytes:
        """Return the body: a whole JPEG, PNG, WebP, GIF or BMP. Raises FetchError."""
        for attempt in range(self._limits.retries + 1):
            try:
                return self._try(url)
            except FetchError as error:
                if not can_pass(error.cause) or attempt == self._limits.retries:
                    raise
                time.sleep(BACK_OFF_S * 2**attempt)
        raise AssertionError("retries is never negative")

    def _try(self, url: str) -> bytes:
        deadline_s = time.monotonic() + self._limits.timeout_s
        address = _parse(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._request(address, deadline_s)
            if isinstance(answer, bytes):
                cause = refusal(answer)
                if cause is not None:
                    raise FetchError(cause)
                return answer
            address = _parse(urllib.parse.urljoin(address.url, answer))
        raise FetchError(Cause.TOO_MANY_REDIRECTS)

    def _request(self, url: Url, deadline_s: float) -> bytes | str:
        """Return the body, or where the answer redirects to."""
        connection = _Connection(url, self._guard, self._tls, deadline_s)
        try:
            connection.request("GET", url.request_uri, headers=_HEADERS)
            return self._receive(connection.getresponse())
        except BlockedHostError:
            raise FetchError(Cause.BLOCKED_HOST) from None
        except RefusedAddressError:
            raise FetchError(Cause.REFUSED_ADDRESS) from None
        except socket.gaierror:
            raise FetchError(Cause.NO_ADDRESS) from None
        except TimeoutError:
            raise FetchError(Cause.TIMEOUT) from None
        except ssl.SSLError:
            raise FetchError(Cause.BAD_CERTIFICATE) from None
        except http.client.IncompleteRead:
            raise FetchError(Cause.TRUNCATED) from None
        except (http.client.HTTPException, ValueError):
            raise FetchError(Cause.BAD_RESPONSE) from None
        except OSError:
            raise FetchError(Cause.NO_CONNECTION) from None
        finally:
            connection.release()

    def _receive(self, response: http.client.HTTPResponse) -> bytes | str:
        if response.status in _REDIRECTS and response.headers.get("Location"):
            return str(response.headers["Location"])
        if response.status != http.client.OK:
            raise FetchError(from_status(response.status))
        if is_disallowed(response.headers.get_all("X-Robots-Tag", []), CRAWLER):
            raise FetchError(Cause.DISALLOWED)
        return self._body(response)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        limit = self._limits.max_body_bytes
        if (response.length or 0) > limit:
            raise FetchError(Cause.BODY_TOO_LARGE)
        body = io.BytesIO()
        while part := response.read(READ_BYTES):
            body.write(part)
            if body.tell() > limit:
                raise FetchError(Cause.BODY_TOO_LARGE)
        if response.length:
            raise FetchError(Cause.TRUNCATED)
        return body.getvalue()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


_HEADERS = {
    "User-Agent": f"Mozilla/5.0 (compatible; {CRAWLER})",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


def _parse(url: str) -> Url:
    """Return a url with its host in ASCII and its path quoted."""
    try:
        address = parse_url(url.strip())
    except LocationParseError:
        raise FetchError(Cause.REFUSED_SCHEME) from None
    if address.scheme not in ("http", "https") or not address.host:
        raise FetchError(Cause.REFUSED_SCHEME)
    return address


class _Connection(http.client.HTTPConnection):
    """Connects to an address that the guard has seen, and lets no operation outlast the deadline."""

    def __init__(self, url: Url, guard: AddressGuard, tls: ssl.SSLContext, deadline_s: float) -> None:
        self._is_tls = url.scheme == "https"
        host = (url.host or "").strip("[]")
        super().__init__(host, url.port or (443 if self._is_tls else 80))
        self._guard, self._tls, self._deadline_s = guard, tls, deadline_s
        self._open: socket.socket | None = None

    def connect(self) -> None:
        problem: OSError = OSError(f"{self.host} has no address")
        for family, address in self._guard.addresses(self.host, self.port):
            opened = socket.socket(family, socket.SOCK_STREAM)
            try:
                opened.settimeout(_remaining_s(self._deadline_s))
                opened.connect(address)
                self._open = self._secure(opened)
                # http.client closes what it is given once it has the headers; the body is read through this stand-in.
                self.sock = _DeadlineSocket(self._open, self._deadline_s)
                return
            except OSError as error:
                opened.close()
                problem = error
        raise problem

    def release(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
        self.close()

    def _secure(self, opened: socket.socket) -> socket.socket:
        if not self._is_tls:
            return opened
        opened.settimeout(_remaining_s(self._deadline_s))
        return self._tls.wrap_socket(opened, server_hostname=self.host)


class _DeadlineSocket:
    """What http.client uses of a socket, with one deadline for all of it: a slow drip does not start it anew."""

    def __init__(self, opened: socket.socket, deadline_s: float) -> None:
        self._socket, self._deadline_s = opened, deadline_s

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_remaining_s(self._deadline_s))
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._socket, self._deadline_s), 1 << 16)

    def close(self) -> None:
        """Leave the connection open: whoever opened it closes it."""


class _DeadlineReader(io.RawIOBase):
    def __init__(self, opened: socket.socket, deadline_s: float) -> None:
        self._socket, self._deadline_s = opened, deadline_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_remaining_s(self._deadline_s))
        return self._socket.recv_into(buffer)


def _remaining_s(deadline_s: float) -> float:
    remaining_s = deadline_s - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    return remaining_s
