"""Which addresses may be fetched from: public ones, and hosts that a setting names.

A list of urls from the internet is hostile input: http://169.254.169.254/ hands out the instance's credentials. What
is judged is the address that the connection is then made to, not the name, so that neither odd spellings (decimal,
octal, IPv6-mapped) nor a name that resolves differently the second time gets around it.
"""

import ipaddress
import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from steps.data.causes import Cause, FetchError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SocketAddress = tuple[socket.AddressFamily, tuple[str, int]]
Resolver = Callable[[str, int], list[SocketAddress]]

# One process asks for the same few hosts again and again; name servers throttle (img2dataset #145). An address that
# does not answer is forgotten at once, so that a name may be kept for long.
CACHE_S: Final = 3600.0
FAILURE_CACHE_S: Final = 10.0
CACHE_SIZE: Final = 50_000

# RFC 6052 and 6146: an IPv4 address in the last 32 bits.
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


def is_public(address: Address) -> bool:
    """Return whether an address is globally reachable unicast, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return is_public(embedded)
        if address.scope_id is not None or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: ipaddress.IPv6Address) -> Address | None:
    wrapped = (address.ipv4_mapped, address.sixtofour, address.teredo[1] if address.teredo else None)
    if found := next(filter(None, wrapped), None):
        return found
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if int(address) >> 32 == 0 and int(address) > 1:
        # ::a.b.c.d, deprecated by RFC 4291; :: and ::1 are judged as they are.
        return ipaddress.IPv4Address(int(address))
    return None


def resolve(host: str, port: int) -> list[SocketAddress]:
    """Return the addresses of a host. Raises OSError where there is none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, (str(address[0]), int(address[1]))) for family, _, _, _, address in found]


class AddressGuard:
    """Resolves hosts to addresses that may be connected to. Safe for threads."""

    def __init__(
        self,
        allowed_hosts: Iterable[str] = (),
        resolver: Resolver = resolve,
        blocked_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """`allowed_hosts` (`host` or `host:port`) may have any address; `blocked_hosts` and those below them none."""
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._blocked = blocked_hosts
        self._resolver = resolver
        self._cache: OrderedDict[tuple[str, int], _Answer] = OrderedDict()
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int) -> list[SocketAddress]:
        """Return the addresses to connect to.

        Raises FetchError for a blocked host, before it asks, and when any is not public; OSError where there is none.
        """
        if self._blocked and not self._blocked.isdisjoint(_with_parents(host.lower().rstrip("."))):
            raise FetchError(Cause.BLOCKED_HOST)
        addresses = self._resolve(host, port)
        if not addresses:
            raise OSError(f"{host} has no address")
        are_public = all(is_public(ipaddress.ip_address(text)) for _, (text, _) in addresses)
        if not (are_public or self._is_allowed(host, port)):
            raise FetchError(Cause.REFUSED_ADDRESS)
        return addresses

    def forget(self, host: str, port: int) -> None:
        """Ask for a name's addresses anew: none of them answered. That it has none is remembered."""
        with self._lock:
            known = self._cache.get((host, port))
            if known is not None and isinstance(known.found, list):
                del self._cache[host, port]

    def _is_allowed(self, host: str, port: int) -> bool:
        name = host.lower()
        bracketed = f"[{name}]" if ":" in name else name
        return not self._allowed.isdisjoint({name, f"{bracketed}:{port}"})

    def _resolve(self, host: str, port: int) -> list[SocketAddress]:
        """Return a name's addresses: from the cache, or asked for once, whoever else wants them. Raises OSError."""
        key = (host, port)
        with self._lock:
            known = self._cache.get(key)
            if known is None or time.monotonic() >= known.until_s:
                known = self._cache[key] = _Answer()
            self._cache.move_to_end(key)
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        with known.lock:
            found = known.found if known.found is not None else known.ask(self._resolver, host, port)
        if isinstance(found, OSError):
            # One of its own for each thread: a traceback that grew with every row would hold all of their frames.
            raise type(found)(*found.args)
        return found


class _Answer:
    """A name's addresses, or that it has none, and until when that is remembered: while it is asked for, as well."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.found: list[SocketAddress] | OSError | None = None
        self.until_s = math.inf

    def ask(self, resolver: Resolver, host: str, port: int) -> list[SocketAddress] | OSError:
        """Ask for the addresses."""
        try:
            self.found = resolver(host, port)
        except ValueError as error:  # a name that IDNA refuses
            self.found = socket.gaierror(str(error))
        except OSError as error:
            self.found = error
        self.until_s = time.monotonic() + (CACHE_S if isinstance(self.found, list) else FAILURE_CACHE_S)
        return self.found


def _with_parents(host: str) -> Iterator[str]:
    """Yield a.b.c, b.c and c."""
    while host:
        yield host
        host = host.partition(".")[2]
