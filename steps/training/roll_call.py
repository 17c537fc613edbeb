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
from datetime import timedelta
from typing import Final

from torch._C._distributed_c10d import Store, TCPStore

from steps.container import Cluster
from steps.errors import StepError
from steps.network import HostPatience, over, unreachable

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
    patience = HostPatience(cluster, limit_s)
    address = patience.for_head(cluster.rendezvous_port)
    try:
        store = _store(cluster, address)
        try:
            _meet(cluster, store, patience)
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


def _meet(cluster: Cluster, store: Store, patience: HostPatience) -> None:
    """Say that this host is there, and return once every host is and has reached all others."""
    with socket.create_server(("", 0), backlog=BACKLOG) as listener:
        own = f"{patience.for_own_address()}:{listener.getsockname()[1]}"
        store.set(f"{PRESENT}/{cluster.current_host}", own)
        _wait_for_all(cluster, store, PRESENT, patience)
        _reach_all(cluster, store)
        store.set(f"{REACHED}/{cluster.current_host}", own)
        _wait_for_all(cluster, store, REACHED, patience)


def _wait_for_all(cluster: Cluster, store: Store, word: str, patience: HostPatience) -> None:
    """Return when every host has said a word. Raises StepError where one reports a fault."""
    while missing := [host for host in cluster.hosts if not store.check([f"{word}/{host}"])]:
        if store.check([FAULT]):
            raise StepError(store.get(FAULT).decode())
        verb = "has not come to" if word == PRESENT else "has not reached the others from"
        where = f"{cluster.hosts[0]}, port {cluster.rendezvous_port}{over(cluster)}"
        patience.pause(f"host {_listed(missing)} {verb} {where}")


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
