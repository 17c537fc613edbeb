"""Which addresses may be fetched from: public ones, and hosts that a setting names.

A list of urls from the internet is hostile input: http://169.254.169.254/ hands out the instance's credentials. What
is judged is the address that the connection is then made to, not the name, so that neither odd spellings (decimal,
octal, IPv6-mapped) nor a name that resolves differently the second time gets around it.
"""

import ipaddress
import socket
from collections.abc import Iterable, Iterator

from steps.data.causes import Cause, FetchError
from steps.data.fetching.host_names import HostNames

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SocketAddress = tuple[socket.AddressFamily, tuple[str, int]]

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


class AddressGuard:
    """Resolves hosts to addresses that may be connected to. Safe for threads."""

    def __init__(
        self,
        allowed_hosts: Iterable[str] = (),
        names: HostNames | None = None,
        blocked_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """`allowed_hosts` (`host` or `host:port`) may have any address; `blocked_hosts` and those below them none."""
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._blocked = blocked_hosts
        self._names = names or HostNames()

    def addresses(self, host: str, port: int) -> list[SocketAddress]:
        """Return the addresses to connect to.

        Raises FetchError for a blocked host, before it asks, and when any is not public; OSError where there is none.
        """
        if self._blocked and not self._blocked.isdisjoint(_with_parents(host.lower().rstrip("."))):
            raise FetchError(Cause.BLOCKED_HOST)
        addresses = [(family, (text, port)) for family, text in self._names.addresses(host)]
        if not addresses:
            raise OSError(f"{host} has no address")
        are_public = all(is_public(ipaddress.ip_address(text)) for _, (text, _) in addresses)
        if not (are_public or self._is_allowed(host, port)):
            raise FetchError(Cause.REFUSED_ADDRESS)
        return addresses

    def forget(self, host: str) -> None:
        """Ask for a name's addresses anew before long: none of them answered."""
        self._names.forget(host)

    def _is_allowed(self, host: str, port: int) -> bool:
        name = host.lower()
        bracketed = f"[{name}]" if ":" in name else name
        return not self._allowed.isdisjoint({name, f"{bracketed}:{port}"})


def _with_parents(host: str) -> Iterator[str]:
    """Yield a.b.c, b.c and c."""
    while host:
        yield host
        host = host.partition(".")[2]
