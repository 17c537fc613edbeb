"""How the hosts of a job reach each other: by the network interface that SageMaker names, and by addresses.

Reads this host's interfaces and its resolver; sets GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME. The host's own name is
never asked for: in a container it may resolve to nothing, or to loopback, where no other host finds this one.
"""

import socket
import struct
import sys
import time
from collections.abc import MutableMapping
from typing import Final

from steps.container import Cluster
from steps.errors import StepError

# Without these gloo looks up the address of the host's name, and NCCL takes the interface that it likes best.
INTERFACE_VARIABLES: Final = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
CONNECT_TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.2
SAY_EVERY_S: Final = 60.0
# linux/sockios.h: the IPv4 address of an interface.
_SIOCGIFADDR: Final = 0x8915
_NAME_BYTES: Final = 15
# Nothing is sent to it: connecting a datagram socket only chooses the way.
_ANY_PORT: Final = 9

Address = tuple[str, int]


class HostPatience:
    """How long this host waits for the others of its job."""

    def __init__(self, cluster: Cluster, limit_s: float) -> None:
        self._cluster, self._limit_s = cluster, limit_s
        self._deadline_s = time.monotonic() + limit_s
        self._said_s = time.monotonic()

    def for_head(self, port: int) -> str:
        """Return the first host's address, once it answers there; the first host itself only needs to know it."""
        cluster = self._cluster
        while True:
            try:
                address = head_address(cluster)
                problem = "" if cluster.is_head else unreachable((address, port))
            except OSError as error:
                problem = error.strerror or str(error)
            if not problem:
                return address
            where = f"{cluster.head_address}:{port}{over(cluster)}"
            self.pause(f"host {cluster.hosts[0]} does not answer at {where} ({problem})")

    def for_own_address(self) -> str:
        """Return this host's address, once it is known."""
        while True:
            try:
                return own_address(self._cluster)
            except OSError as error:
                self.pause(f"host {self._cluster.current_host} knows no address of its own ({error})")

    def pause(self, problem: str) -> None:
        """Wait a little; say now and then what is waited for. Raises StepError when the time is up."""
        now_s = time.monotonic()
        if now_s > self._deadline_s:
            raise StepError(
                f"{problem} in {self._limit_s:.0f} s: see whether that host started, and whether the security group "
                "lets the job's hosts reach each other; host_wait_s sets the limit"
            )
        if now_s - self._said_s >= SAY_EVERY_S:
            print(f"waiting: {problem}; {self._deadline_s - now_s:.0f} s are left", flush=True)
            self._said_s = now_s
        time.sleep(POLL_S)


def use_interface(cluster: Cluster, environment: MutableMapping[str, str]) -> None:
    """Have collectives use the interface that SageMaker names, unless one is set. Raises StepError where it is none."""
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
