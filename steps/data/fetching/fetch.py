"""Fetches one picture from a hostile web: bounded in address, redirects, time and bytes; polite to its hosts.

Reads http(s) and nothing else; environment proxies are ignored, since behind one the address that is connected to
could not be judged.
"""

import http.client
import io
import re
import socket
import ssl
import time
import urllib.parse
import zlib
from collections.abc import Mapping
from typing import Final

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from params.programs import DownloadSettings
from steps.data.causes import Cause, FetchError, can_pass, from_status
from steps.data.fetching.address import AddressGuard
from steps.data.fetching.connection import GuardedConnection
from steps.data.fetching.host_turns import HostTurns, retry_after_s
from steps.data.fetching.opt_outs import is_reserved
from steps.data.pictures.picture_format import format_of, is_cut, refusal

CRAWLER: Final = "sd-pipeline"
MAX_REDIRECTS: Final = 20
"""As browsers (https://fetch.spec.whatwg.org/#http-redirect-fetch)."""
READ_BYTES: Final = 1 << 18
BACK_OFF_S: Final = 0.5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WHOLE = frozenset({http.client.OK, http.client.NON_AUTHORITATIVE_INFORMATION})
_BUSY = frozenset({http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE})
_RANGE = re.compile(r"bytes\s+0-(\d+)/(\d+)", re.IGNORECASE)
_AMPERSAND = re.compile("&amp;", re.IGNORECASE)
# No url means these: a "#" behind "&" would begin a fragment.
_NUMERIC_AMPERSAND = re.compile("&#(?:0*38|x0*26);", re.IGNORECASE)
_BARE_PERCENT = re.compile("%(?![0-9a-f]{2})", re.IGNORECASE)
_IGNORED_IN_URLS = str.maketrans("", "", "\t\r\n\ufeff")

MAX_CODINGS: Final = 3
_UNDONE: Final = frozenset({"gzip", "x-gzip", "deflate"})
_NOT_UNDONE: Final = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_RAW: Final = -zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"


class Fetcher:
    """Fetches pictures. Safe for threads."""

    def __init__(self, settings: DownloadSettings, guard: AddressGuard) -> None:
        """`settings` bound a picture's time and bytes, and say how the crawler presents itself."""
        self._settings, self._guard, self._tls = settings, guard, ssl.create_default_context()
        self._turns = HostTurns(settings.max_retry_after_s, settings.connections_per_host)
        words = ("compatible", CRAWLER, *([f"+{settings.contact}"] if settings.contact else []))
        agent = f"Mozilla/5.0 ({'; '.join(words)})"
        self._headers = {"Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close", "User-Agent": agent}

    def fetch(self, url: str) -> bytes:
        """Return the body: a picture of a format that is read, whole as far as a glance tells. Raises FetchError.

        A url that is not there and holds `&amp;`, as lists scraped from HTML do, is also tried with `&`.
        """
        try:
            return self._patiently(url)
        except FetchError as error:
            unescaped = _AMPERSAND.sub("&", url)
            if unescaped == url or not error.cause.startswith("http_4") or can_pass(error.cause):
                raise
        return self._patiently(unescaped)

    def _patiently(self, url: str) -> bytes:
        for attempt in range(self._settings.retries):
            try:
                body = self._try(url)
                if not is_cut(body):
                    return body
            except FetchError as error:
                if not can_pass(error.cause):
                    raise
            time.sleep(BACK_OFF_S * 2**attempt)
        # The same bytes again may be how the picture is: the decoder decides about it.
        return self._try(url)

    def _try(self, url: str) -> bytes:
        deadline_s = time.monotonic() + self._settings.timeout_s
        address = _parse(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._turns.turn(address.netloc or "") as waited_s:
                deadline_s += waited_s
                answer = self._request(address, deadline_s)
            if isinstance(answer, bytes):
                if cause := refusal(answer):
                    raise FetchError(cause)
                return answer
            address = _parse(redirect_target(address.url, answer))
        raise FetchError(Cause.TOO_MANY_REDIRECTS)

    def _request(self, url: Url, deadline_s: float) -> bytes | str:
        connection = GuardedConnection(url, self._guard, self._tls, deadline_s)
        asked_s = time.monotonic()
        try:
            connection.request("GET", url.request_uri, headers=self._headers)
            response = connection.getresponse()
            self._heed(url.netloc or "", response, asked_s)
            return self._receive(response)
        except tuple(_CAUSES) as error:
            raise FetchError(next(cause for kind, cause in _CAUSES.items() if isinstance(error, kind))) from None
        finally:
            connection.release()

    def _heed(self, host: str, response: http.client.HTTPResponse, asked_s: float) -> None:
        """Leave a host alone that asks for it."""
        if response.status not in _BUSY:
            self._turns.answered(host, asked_s)
            return
        wait_s = retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date"))
        if wait_s is not None:
            self._turns.pause(host, wait_s, asked_s, from_status(response.status))

    def _receive(self, response: http.client.HTTPResponse) -> bytes | str:
        location = response.headers.get("Location")
        is_redirect = response.status in _REDIRECTS and location
        if not is_redirect and response.status not in _WHOLE and not _is_whole_range(response):
            raise FetchError(from_status(response.status))
        if is_reserved(response.headers, CRAWLER, self._settings.ignored_opt_outs):
            raise FetchError(Cause.DISALLOWED)
        return str(location) if is_redirect else self._body(response)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        limit = self._settings.max_body_mb << 20
        if (response.length or 0) > limit:
            raise FetchError(Cause.BODY_TOO_LARGE)
        body = io.BytesIO()
        while part := response.read(READ_BYTES):
            body.write(part)
            if body.tell() > limit:
                raise FetchError(Cause.BODY_TOO_LARGE)
        if response.length:
            raise FetchError(Cause.TRUNCATED)
        codings = ",".join(map(str, response.headers.get_all("Content-Encoding", [])))
        return decoded(body.getvalue(), codings, limit) if codings else body.getvalue()


# The first that fits: most of these are OSErrors.
_CAUSES: Final[Mapping[type[Exception], Cause]] = {
    socket.gaierror: Cause.NO_ADDRESS,
    TimeoutError: Cause.TIMEOUT,
    ssl.SSLError: Cause.BAD_CERTIFICATE,
    http.client.IncompleteRead: Cause.TRUNCATED,
    http.client.HTTPException: Cause.BAD_RESPONSE,
    ValueError: Cause.BAD_RESPONSE,
    OSError: Cause.NO_CONNECTION,
}


def _is_whole_range(response: http.client.HTTPResponse) -> bool:
    """Return whether a partial answer, to a request that asked for no part, is all there is."""
    parts = _RANGE.fullmatch(str(response.headers.get("Content-Range") or "").strip())
    return response.status == http.client.PARTIAL_CONTENT and parts is not None and int(parts[1]) + 1 == int(parts[2])


def _parse(url: str) -> Url:
    """Return a url with its host in ASCII and its path quoted."""
    text = _NUMERIC_AMPERSAND.sub("&", url.translate(_IGNORED_IN_URLS).strip())
    try:
        # urllib3 quotes every percent sign of a url that holds a bare one.
        address = parse_url(_BARE_PERCENT.sub("%25", text))
    except LocationParseError:
        raise FetchError(Cause.REFUSED_SCHEME) from None
    if address.scheme not in ("http", "https") or not address.host:
        raise FetchError(Cause.REFUSED_SCHEME)
    return address


def redirect_target(url: str, location: str) -> str:
    """Return where a Location leads to, as browsers read it (https://url.spec.whatwg.org). Raises FetchError.

    http.client reads headers as Latin-1; what stands in them are the bytes of UTF-8, or of whatever the server has.
    """
    content = location.encode("latin-1", "replace").translate(None, b"\t\r\n").strip(b"\x00\x20")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in content)
    path, mark, rest = text.partition("?")
    # Backslashes are slashes to browsers, but for those of a query.
    try:
        return urllib.parse.urljoin(url, path.replace("\\", "/") + mark + rest)
    except ValueError:  # a host that is none
        raise FetchError(Cause.REFUSED_SCHEME) from None


def decoded(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """Return the body without the codings that the header names, bounded: kilobytes may unpack to gigabytes.

    A receiver undoes gzip and deflate whether it asked or not (RFC 9110, 8.4.1). Others, which nobody asked for, are
    not undone; a name that is no coding (`none`, `utf-8`) changes nothing. Raises FetchError.
    """
    named = (name.strip().lower() for name in content_encoding.split(","))
    codings = [name for name in named if name in _UNDONE | _NOT_UNDONE]
    if len(codings) > MAX_CODINGS:
        raise FetchError(Cause.BAD_RESPONSE)
    for name in reversed(codings):
        if name in _UNDONE:
            body = _unpacked(body, name, max_bytes)
        elif format_of(body) is None:
            raise FetchError(Cause.BAD_RESPONSE)
    return body


def _unpacked(body: bytes, coding: str, max_bytes: int) -> bytes:
    # `deflate` means zlib's format (RFC 9110, 8.4.1.2), and some servers send the bare stream.
    bare = coding == "deflate" and (len(body) < 2 or body[0] & 15 != 8 or int.from_bytes(body[:2], "big") % 31)
    content = b""
    while True:
        unpacker = zlib.decompressobj(_RAW if bare else _GZIP_OR_ZLIB)
        try:
            content += unpacker.decompress(body, max_bytes + 1 - len(content))
        except zlib.error:
            raise FetchError(Cause.BAD_RESPONSE) from None
        if len(content) > max_bytes:
            raise FetchError(Cause.BODY_TOO_LARGE)
        if not unpacker.eof:
            raise FetchError(Cause.TRUNCATED)
        body = unpacker.unused_data
        # A gzip file may have several members (RFC 1952, 2.2); other bytes behind the end are ignored.
        if not body.startswith(_GZIP_MAGIC):
            return content
