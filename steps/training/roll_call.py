"""Waits until every host of a training job is there and each can reach each other one, before any rank starts.

The first host keeps the list, in the store that torchrun's agents then share. Writes nothing. What would otherwise hang
for an hour (a host that never starts, a security group that lets nothing through) ends within the time that is allowed,
with a line that names the host, the interface and the port.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from torch._C._distributed_c10d import Store, TCPStore

from steps.container import Cluster
from steps.errors import StepError
from steps.network import head_address, over, own_address, unreachable

POLL_S: Final = 0.2
SAY_EVERY_S: Final = 60.0
STORE_TIMEOUT: Final = timedelta(seconds=60)
# Linux' own limit for connections that wait to be accepted: nobody accepts them, for a connection is the answer.
BACKLOG: Final = 4096
# The others read from the first host why it ends, before it does.
LINGER_S: Final = 2.0
PRESENT, REACHED, FAULT = "present", "reached", "fault"


@contextmanager
def roll_call(cluster: Cluster, limit_s: float) -> Iterator[str]:
    """Yield the first host's address once all hosts reach each other; their store stays open inside.

    Raises StepError that names the hosts that are missing after `limit_s` seconds, or that cannot be reached.
    """
    waiting = _Waiting(cluster, limit_s, time.monotonic() + limit_s)
    address = waiting.for_head()
    try:
        store = _store(cluster, address)
        try:
            _meet(cluster, store, waiting)
        except StepError as error:
            store.set(FAULT, str(error))
            if cluster.is_head:
                time.sleep(LINGER_S)
            raise
    except RuntimeError as error:
        raise StepError(
            f"host {cluster.hosts[0]} went away from {address}:{cluster.rendezvous_port}{over(cluster)} while the "
            f"hosts of the job met: see its log ({' '.join(str(error).split())[:200]})"
        ) from None
    yield address
    del store


def _meet(cluster: Cluster, store: Store, waiting: _Waiting) -> None:
    """Say that this host is there, and return once every host is and has reached all others."""
    with socket.create_server(("", 0), backlog=BACKLOG) as listener:
        own = f"{waiting.for_own_address()}:{listener.getsockname()[1]}"
        store.set(f"{PRESENT}/{cluster.current_host}", own)
        waiting.for_all(store, PRESENT)
        _reach_all(cluster, store)
        store.set(f"{REACHED}/{cluster.current_host}", own)
        waiting.for_all(store, REACHED)


@dataclass(frozen=True)
class _Waiting:
    """One host's patience."""

    cluster: Cluster
    limit_s: float
    deadline_s: float

    def for_head(self) -> str:
        """Return the first host's address, once it answers there; the first host itself only needs to know it."""
        cluster, said_s = self.cluster, time.monotonic()
        while True:
            try:
                address = head_address(cluster)
                problem = "" if cluster.is_head else unreachable((address, cluster.rendezvous_port))
            except OSError as error:
                problem = error.strerror or str(error)
            if not problem:
                return address
            where = f"{cluster.head_address}:{cluster.rendezvous_port}{over(cluster)}"
            said_s = self._pause(f"host {cluster.hosts[0]} does not answer at {where} ({problem})", said_s)

    def for_own_address(self) -> str:
        """Return this host's address, once it is known."""
        said_s = time.monotonic()
        while True:
            try:
                return own_address(self.cluster)
            except OSError as error:
                said_s = self._pause(f"host {self.cluster.current_host} knows no address of its own ({error})", said_s)

    def for_all(self, store: Store, word: str) -> None:
        """Return when every host has said a word. Raises StepError where one reports a fault."""
        cluster, said_s = self.cluster, time.monotonic()
        while missing := [host for host in cluster.hosts if not store.check([f"{word}/{host}"])]:
            if store.check([FAULT]):
                raise StepError(store.get(FAULT).decode())
            verb = "has not come to" if word == PRESENT else "has not reached the others from"
            where = f"{cluster.hosts[0]}, port {cluster.rendezvous_port}{over(cluster)}"
            said_s = self._pause(f"host {_listed(missing)} {verb} {where}", said_s)

    def _pause(self, problem: str, said_s: float) -> float:
        """Wait a little; return when it was last said what is waited for."""
        now_s = time.monotonic()
        if now_s > self.deadline_s:
            raise StepError(
                f"{problem} in {self.limit_s:.0f} s: see whether that host started, and whether the security group "
                "lets the job's hosts reach each other; host_wait_s sets the limit"
            )
        if now_s - said_s >= SAY_EVERY_S:
            print(f"waiting: {problem}; {self.deadline_s - now_s:.0f} s are left", flush=True)
            said_s = now_s
        time.sleep(POLL_S)
        return said_s


def _store(cluster: Cluster, address: str) -> Store:
    # multi_tenant: torchrun's agent on this host then shares the server, in place of opening the port again.
    return TCPStore(
        address,
        cluster.rendezvous_port,
        is_master=cluster.is_head,
        timeout=STORE_TIMEOUT,
        wait_for_workers=False,
        multi_tenant=True,
    )


def _reach_all(cluster: Cluster, store: Store) -> None:
    """Connect to every other host. Raises StepError for the first one that cannot be reached."""
    for host in cluster.hosts:
        address, port = store.get(f"{PRESENT}/{host}").decode().rsplit(":", 1)
        problem = unreachable((address, int(port)))
        if problem:
            raise StepError(
                f"host {cluster.current_host} cannot reach host {host} at {address}:{port}{over(cluster)} ({problem}): "
                "the security group must let the job's hosts reach each other on every port"
            )


def _listed(hosts: Sequence[str], most: int = 8) -> str:
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more
