"""Hosts of one job as SageMaker lays them out, on this machine: network namespaces on one bridge, nothing leaves them.

Each host has one interface, a host name that resolves to nothing (or loopback), and a hosts file with algo-1, ...; of
this machine's loopback it reaches the relayed ports. Makes and deletes network namespaces; needs root, `ip`, `unshare`.
"""

import ctypes
import functools
import os
import select
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline_definition.local.settings import HOST

NETWORK = "10.9.0"
NAMESPACES = Path("/run/netns")
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of linux/sched.h
_BLOCK_BYTES = 65_536
_BACKLOG = 128


@functools.cache
def possible() -> bool:
    """Return whether this user may make network namespaces."""
    if os.getuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    tag = f"sdt{os.getpid()}-"
    try:
        _ip(f"netns add {tag}")
        _ip(f"-n {tag} link add veth-a type veth peer name veth-b")
    except subprocess.CalledProcessError:
        return False
    finally:
        remove(tag)
    return True


@dataclass(frozen=True)
class ForeignHost:
    name: str
    namespace: str
    interface: str
    address: str
    hosts_file: Path

    def command(self, argv: Sequence[str]) -> tuple[str, ...]:
        shell = f'hostname ip-{self.address.replace(".", "-")}; mount --bind {self.hosts_file} /etc/hosts; exec "$@"'
        return ("ip", "netns", "exec", self.namespace, "unshare", "-u", "-m", "bash", "-c", shell, "bash", *argv)


def interface_of(number: int) -> str:
    return f"job{number}"


@contextmanager
def foreign_hosts(
    count: int, folder: Path, tag: str, own_name: str = "", ports: Sequence[int] = ()
) -> Iterator[list[ForeignHost]]:
    """Yield hosts algo-1, algo-2, ...; `tag` begins the names of their namespaces.

    `own_name` is the address, if any, of a host's own name; `ports` of this machine's loopback are theirs, too.
    """
    made = [
        ForeignHost(f"algo-{n}", f"{tag}-{n}", interface_of(n), f"{NETWORK}.{n}", folder / f"hosts-{n}")
        for n in range(1, count + 1)
    ]
    table = [f"{host.address} {host.name}" for host in made]
    remove(tag)
    with ExitStack() as relays:
        relays.callback(remove, tag)
        _ip(f"netns add {tag}")
        _ip(f"-n {tag} link add bridge type bridge")
        _ip(f"-n {tag} link set bridge up")
        for host in made:
            own = [f"{own_name} {host.name} ip-{host.address.replace('.', '-')}"] if own_name else []
            host.hosts_file.write_text("\n".join(["127.0.0.1 localhost", *own, *table, ""]), encoding="utf-8")
            _ip(f"netns add {host.namespace}")
            port = f"{host.interface}p"
            _ip(f"-n {tag} link add {port} type veth peer name {host.interface} netns {host.namespace}")
            _ip(f"-n {tag} link set {port} master bridge up")
            _ip(f"-n {host.namespace} link set lo up")
            _ip(f"-n {host.namespace} addr add {host.address}/24 dev {host.interface}")
            _ip(f"-n {host.namespace} link set {host.interface} up")
            for number in ports:
                relays.enter_context(_relayed(host.namespace, number))
        yield made


def remove(tag: str) -> None:
    """Delete the namespaces whose names begin so; whoever made them may have been killed."""
    for path in NAMESPACES.glob(f"{tag}*"):
        subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)


class _Relay(socketserver.BaseRequestHandler):
    """Carries the bytes of one connection to the same port of this machine, and back."""

    def handle(self) -> None:
        with socket.create_connection(self.request.getsockname()) as outside:
            other = {self.request: outside, outside: self.request}
            while True:
                for end in select.select(list(other), [], [])[0]:
                    data = end.recv(_BLOCK_BYTES)
                    if not data:
                        return
                    other[end].sendall(data)


@contextmanager
def _relayed(namespace: str, port: int) -> Iterator[None]:
    with ThreadPoolExecutor(1) as elsewhere:  # a thread goes there, and ends
        server = elsewhere.submit(_server_in, namespace, port).result()
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def _server_in(namespace: str, port: int) -> socketserver.ThreadingTCPServer:
    """Return a relay that listens on the loopback of a network namespace, which the calling thread enters for good."""
    with (NAMESPACES / namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"network namespace {namespace} cannot be entered")
    server = socketserver.ThreadingTCPServer((HOST, port), _Relay)
    server.daemon_threads = True
    server.socket.listen(_BACKLOG)
    return server
