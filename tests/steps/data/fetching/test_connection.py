import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from steps.data.fetching.address import SocketAddress
from steps.data.fetching.connection import CONNECTION_ATTEMPT_DELAY_S, _alternating, connect_first


@contextmanager
def listening() -> Iterator[SocketAddress]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield socket.AF_INET, server.getsockname()


@contextmanager
def swallowing() -> Iterator[SocketAddress]:
    """An address whose queue is full: what asks to be connected to it gets no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as filler:
        filler.connect(server.getsockname())
        yield socket.AF_INET, server.getsockname()


REFUSING: SocketAddress = (socket.AF_INET, ("127.0.0.1", 9))


def test_the_second_address_is_tried_after_a_short_wait() -> None:
    with swallowing() as silent, listening() as answering:
        began_s = time.monotonic()
        with connect_first([silent, answering], began_s + 5) as opened:
            assert opened.getpeername() == answering[1]
        assert CONNECTION_ATTEMPT_DELAY_S * 0.9 < time.monotonic() - began_s < 2


def test_a_refusal_costs_no_wait() -> None:
    with listening() as answering:
        began_s = time.monotonic()
        with connect_first([REFUSING, answering], began_s + 5) as opened:
            assert opened.getpeername() == answering[1]
        assert time.monotonic() - began_s < CONNECTION_ATTEMPT_DELAY_S


def test_the_deadline_ends_the_wait() -> None:
    with swallowing() as silent:
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            connect_first([silent, silent], began_s + 0.4)
        assert time.monotonic() - began_s < 2


def test_the_last_refusal_is_told() -> None:
    with pytest.raises(ConnectionRefusedError):
        connect_first([REFUSING, REFUSING], time.monotonic() + 5)
    with pytest.raises(OSError, match="no address"):
        connect_first([], time.monotonic() + 5)


def test_families_take_turns() -> None:
    six = [(socket.AF_INET6, (f"2001:db8::{number}", 80)) for number in range(3)]
    four = [(socket.AF_INET, (f"192.0.2.{number}", 80)) for number in range(2)]
    assert _alternating([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
