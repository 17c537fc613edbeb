"""Connections that nothing outlasts and that go nowhere but where the guard lets them.

Of a host's addresses the next one is tried when the one before it has not answered within a quarter of a second, and
the first that answers is taken (RFC 8305, "Happy Eyeballs"): else one address that swallows packets eats a row's whole
time. Reads and writes sockets.
"""

import errno
import http.client
import io
import os
import selectors
import socket
import ssl
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from urllib3.util import Url

from steps.data.fetching.address import AddressGuard, SocketAddress

CONNECTION_ATTEMPT_DELAY_S: Final = 0.25
"""RFC 8305, 5."""


class FinalResponse(http.client.HTTPResponse):
    """An answer without what may come before it: a server sends 102 or 103 unasked, and http.client skips 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status not in (http.client.PROCESSING, http.client.EARLY_HINTS):
                return version, status, reason
            http.client.parse_headers(self.fp)


class GuardedConnection(http.client.HTTPConnection):
    """Connects to an address that the guard has seen, and lets no operation outlast the deadline."""

    response_class = FinalResponse

    def __init__(self, url: Url, guard: AddressGuard, tls: ssl.SSLContext, deadline_s: float) -> None:
        self._is_tls = url.scheme == "https"
        # http.client leaves the default port out of the Host header (RFC 9110, 4.2.3), and takes it for 80.
        self.default_port = http.client.HTTPS_PORT if self._is_tls else http.client.HTTP_PORT
        host = (url.host or "").strip("[]")
        super().__init__(host, url.port or self.default_port)
        self._guard, self._tls, self._deadline_s = guard, tls, deadline_s
        self._open: socket.socket | None = None

    def connect(self) -> None:
        """Connect. Raises OSError, and what the guard raises."""
        try:
            self._open = connect_first(self._guard.addresses(self.host, self.port), self._deadline_s)
        except OSError:
            self._guard.forget(self.host)
            raise
        if self._is_tls:
            self._open.settimeout(remaining_s(self._deadline_s))
            self._open = self._tls.wrap_socket(self._open, server_hostname=self.host.rstrip("."))
        # http.client closes what it is given once it has the headers; the body is read through this stand-in.
        self.sock = _DeadlineSocket(self._open, self._deadline_s)

    def release(self) -> None:
        if self._open is not None:
            self._open.close()
        self.close()


def connect_first(addresses: Sequence[SocketAddress], deadline_s: float) -> socket.socket:
    """Return a connection to the address that answers first. Raises the last OSError, TimeoutError at the deadline."""
    waiting = _alternating(addresses)
    problem: OSError = OSError("no address")
    with selectors.DefaultSelector() as pending:
        try:
            while waiting or pending.get_map():
                if waiting:
                    try:
                        pending.register(_begin(waiting.pop(0)), selectors.EVENT_WRITE)
                    except OSError as error:
                        problem = error
                        continue
                left_s = remaining_s(deadline_s)
                ready = pending.select(min(left_s, CONNECTION_ATTEMPT_DELAY_S) if waiting else left_s)
                for key, _ in ready:
                    opened: socket.socket = key.fileobj  # type: ignore[assignment]
                    pending.unregister(opened)
                    code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return opened
                    opened.close()
                    problem = OSError(code, os.strerror(code))
        finally:
            for key in list(pending.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    raise problem


def _alternating(addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
    """Return addresses so that families take turns, beginning with the first one's (RFC 8305, 4)."""
    family = addresses[0][0] if addresses else None
    first = [address for address in addresses if address[0] == family]
    second = [address for address in addresses if address[0] != family]
    return [one for pair in zip_longest(first, second) for one in pair if one is not None]


def _begin(address: SocketAddress) -> socket.socket:
    opened = socket.socket(address[0], socket.SOCK_STREAM)
    opened.setblocking(False)
    code = opened.connect_ex(address[1])
    if code not in (0, errno.EINPROGRESS):
        opened.close()
        raise OSError(code, os.strerror(code))
    return opened


class _DeadlineSocket(io.RawIOBase):
    """What http.client uses of a socket, with one deadline for all of it: a slow drip does not start it anew."""

    def __init__(self, opened: socket.socket, deadline_s: float) -> None:
        self._socket, self._deadline_s = opened, deadline_s

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(remaining_s(self._deadline_s))
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 1 << 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(remaining_s(self._deadline_s))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        """Leave the connection open: whoever opened it closes it."""


def remaining_s(deadline_s: float) -> float:
    """Return the seconds up to a deadline. Raises TimeoutError where none are left."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
