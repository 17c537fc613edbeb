"""Hosts of one job as SageMaker lays them out, on this machine: network namespaces on one bridge, nothing leaves them.

Each host has one interface, its own host name, which resolves to nothing (or to loopback), and a hosts file that knows
algo-1, algo-2, ... Needs root and `ip`, `unshare`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

NETWORK = "10.9.0"


def possible() -> bool:
    """Return whether this user may make network namespaces."""
    ip, unshare = shutil.which("ip"), shutil.which("unshare")
    if os.getuid() != 0 or ip is None or unshare is None:
        return False
    name = f"sdt{os.getpid()}"
    if subprocess.run([ip, "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    joined = subprocess.run(
        [ip, "-n", name, "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b"],
        capture_output=True,
        check=False,
    )
    subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)
    return joined.returncode == 0


@dataclass(frozen=True)
class Host:
    """One host: a network namespace."""

    name: str
    namespace: str
    interface: str
    address: str
    hosts_file: Path

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes], cwd: Path
    ) -> subprocess.Popen[bytes]:
        """Start a program on the host."""
        shell = f'hostname ip-{self.address.replace(".", "-")}; mount --bind {self.hosts_file} /etc/hosts; exec "$@"'
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, "unshare", "-u", "-m", "bash", "-c", shell, "bash", *command],
            env=dict(environment),
            stdout=log,
            stderr=log,
            cwd=cwd,
        )

    def ip(self, line: str) -> None:
        """Run `ip` on the host."""
        _ip(f"-n {self.namespace} {line}")


@contextmanager
def hosts(count: int, folder: Path, own_name: str = "") -> Iterator[list[Host]]:
    """Yield hosts algo-1, algo-2, ...; `own_name` is the address to which a host's own name resolves, if to any."""
    tag = f"sd{os.getpid() % 100_000}"
    made = [_host(tag, number, folder, own_name) for number in range(1, count + 1)]
    table = [f"{host.address} {host.name}" for host in made]
    try:
        _ip(f"netns add {tag}")
        _ip(f"-n {tag} link add {tag} type bridge")
        _ip(f"-n {tag} link set {tag} up")
        for host in made:
            own = [f"{own_name} {host.name} ip-{host.address.replace('.', '-')}"] if own_name else []
            host.hosts_file.write_text("\n".join(["127.0.0.1 localhost", *own, *table, ""]))
            _ip(f"netns add {host.namespace}")
            port = f"{host.interface}p"
            _ip(f"-n {tag} link add {port} type veth peer name {host.interface} netns {host.namespace}")
            _ip(f"-n {tag} link set {port} master {tag} up")
            host.ip("link set lo up")
            host.ip(f"addr add {host.address}/24 dev {host.interface}")
            host.ip(f"link set {host.interface} up")
        yield made
    finally:
        for namespace in (tag, *(host.namespace for host in made)):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def _host(tag: str, number: int, folder: Path, own_name: str) -> Host:
    return Host(f"algo-{number}", f"{tag}-{number}", f"job{number}", f"{NETWORK}.{number}", folder / f"hosts-{number}")


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)
