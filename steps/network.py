"""How the hosts of a job reach each other: by the network interface that SageMaker names, and by addresses.

Reads this host's interfaces and its resolver; sets GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME. The host's own name is
never asked for: in a container it may resolve to nothing, or to loopback, where no other host finds this one.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import MutableMapping
from typing import Final

from steps.container import Cluster
from steps.errors import StepError

# Without these gloo looks up the address of the host's name, and NCCL takes the interface that it likes best.
INTERFACE_VARIABLES: Final = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
CONNECT_TIMEOUT_S: Final = 2.0
# linux/sockios.h: the IPv4 address of an interface.
_SIOCGIFADDR: Final = 0x8915
_NAME_BYTES: Final = 15
# Nothing is sent to it: connecting a datagram socket only chooses the way.
_ANY_PORT: Final = 9

Address = tuple[str, int]


def use_interface(cluster: Cluster, environment: MutableMapping[str, str]) -> None:
    """Have collectives of several hosts use the interface that SageMaker names, unless another one is set.

    Raises StepError where this host has no such interface.
    """
    if len(cluster.hosts) == 1 or not cluster.interface:
        return
    for variable in INTERFACE_VARIABLES:
        if variable not in environment:
            _require(cluster.interface)
            environment[variable] = cluster.interface


def own_address(cluster: Cluster) -> str:
    """Return the IPv4 address at which the other hosts of the job reach this one.

    The named interface's or, where the job names none, the one from which this host would speak to another. Raises
    OSError where neither is known yet, and StepError where this host has no such interface.
    """
    if cluster.interface and sys.platform == "linux":
        return _address_of(cluster.interface)
    others = [host for host in cluster.hosts if host != cluster.current_host]
    is_meeting_point = cluster.is_head and cluster.head_address in cluster.hosts
    peer = others[0] if is_meeting_point and others else cluster.head_address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, _ANY_PORT))
        return str(probe.getsockname()[0])


def head_address(cluster: Cluster) -> str:
    """Return the IPv4 address of the first host, as this one reaches it. Raises OSError where its name is unknown."""
    if cluster.is_head and len(cluster.hosts) > 1:
        return own_address(cluster)
    return socket.gethostbyname(cluster.head_address)


def unreachable(address: Address) -> str:
    """Return why nobody answers at an address; nothing where somebody does."""
    try:
        socket.create_connection(address, timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def over(cluster: Cluster) -> str:
    """Return which interface a message should name: ` over interface eth0`, or nothing where the job names none."""
    return f" over interface {cluster.interface}" if cluster.interface else ""


def _require(interface: str) -> None:
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names:
        raise StepError(
            f"resourceconfig.json: network_interface_name {interface!r} is no interface of this host, which has "
            f"{', '.join(names)}; set {' and '.join(INTERFACE_VARIABLES)} in the job's environment"
        )


def _address_of(interface: str) -> str:
    import fcntl

    _require(interface)
    request = struct.pack("256s", interface.encode()[:_NAME_BYTES])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError as error:
            raise OSError(error.errno, f"interface {interface} has no IPv4 address: {error.strerror}") from None
    return socket.inet_ntoa(answer[20:24])
