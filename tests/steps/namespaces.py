"""Hosts of one job as SageMaker lays them out, on this machine: network namespaces on one bridge, nothing leaves them.

Each host has one interface, a host name that resolves to nothing (or loopback), and a hosts file with algo-1, ...
Makes and deletes network namespaces; needs root, `ip`, `unshare`.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.9.0"
NAMESPACES = Path("/run/netns")


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


@contextmanager
def foreign_hosts(count: int, folder: Path, tag: str, own_name: str = "") -> Iterator[list[ForeignHost]]:
    """Yield hosts algo-1, algo-2, ...; `tag` begins their namespaces' names, `own_name` is their own names' address."""
    made = [
        ForeignHost(f"algo-{n}", f"{tag}-{n}", f"job{n}", f"{NETWORK}.{n}", folder / f"hosts-{n}")
        for n in range(1, count + 1)
    ]
    table = [f"{host.address} {host.name}" for host in made]
    remove(tag)
    try:
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
        yield made
    finally:
        remove(tag)


def remove(tag: str) -> None:
    """Delete the namespaces whose names begin so; whoever made them may have been killed."""
    for path in NAMESPACES.glob(f"{tag}*"):
        subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)
