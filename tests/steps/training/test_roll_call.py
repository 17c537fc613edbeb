"""Hosts that meet, or say who is missing. Here the hosts are threads; test_launch has real ones."""

import threading
import time

import pytest

from steps import network
from steps.container import Cluster
from steps.errors import StepError
from steps.training import launch as module
from steps.training.launch import roll_call
from tests.steps.training.jobs import free_port


def cluster(count: int, me: int, port: int, interface: str = "lo") -> Cluster:
    hosts = tuple(f"algo-{number}" for number in range(1, count + 1))
    return Cluster(hosts, hosts[me - 1], "127.0.0.1", port, 1, interface=interface)


def answers(count: int, present: list[int], limit_s: float) -> dict[int, str]:
    """Return what each host that is there says: the head's address, or its error."""
    port, told = free_port(), {}

    def be(me: int) -> None:
        try:
            with roll_call(cluster(count, me, port), limit_s) as address:
                told[me] = address
                time.sleep(0.5)  # as the ranks do: the head's store outlives the list
        except StepError as error:
            told[me] = str(error)

    threads = [threading.Thread(target=be, args=(me,)) for me in present]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


def test_hosts_that_are_all_there_get_the_heads_address() -> None:
    assert answers(3, [3, 2, 1], 30) == dict.fromkeys([1, 2, 3], "127.0.0.1")


def test_every_host_names_those_that_are_missing() -> None:
    told = answers(4, [1, 3], 1.5)
    assert "host algo-2, algo-4 has not come to algo-1, port" in told[1]
    assert "algo-2, algo-4" in told[3]
    assert all("over interface lo" in text for text in told.values())


def test_a_host_that_is_there_but_cannot_be_reached_ends_all_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "unreachable", lambda address: "Connection timed out")
    monkeypatch.setattr(network.HostPatience, "for_head", lambda self, port: "127.0.0.1")
    told = answers(2, [1, 2], 30)
    assert all("cannot reach host algo-" in text and "(Connection timed out)" in text for text in told.values()), told
    assert all("security group" in text for text in told.values())


def test_a_wait_is_announced_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network, "SAY_EVERY_S", 0.3)
    answers(2, [1], 1.5)
    assert "waiting: host algo-2 has not come to algo-1" in capsys.readouterr().out
