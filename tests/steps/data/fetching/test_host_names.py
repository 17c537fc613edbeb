import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from steps.data.fetching import host_names as module
from steps.data.fetching.host_names import FoundAddress, HostNames

PACKETS_PER_ASK = 2
VPC_PACKETS_PER_S = 1024
"""Amazon VPC user guide, "DNS quotas"."""


class Web:
    """A resolver that counts, and a time that passes while one sleeps."""

    def __init__(self) -> None:
        self.now_s, self.asked, self.asked_s = 1000.0, list[str](), list[float]()
        self.fails: OSError | None = None

    def names(self, file: Path | None = None) -> HostNames:
        return HostNames(file, self.ask, lambda: self.now_s, self.sleep)

    def ask(self, name: str) -> list[FoundAddress]:
        self.asked.append(name)
        self.asked_s.append(self.now_s)
        if self.fails:
            raise self.fails
        return [(socket.AF_INET, f"8.8.8.{len(self.asked) % 256}")]

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_processes_of_a_host_ask_for_a_name_once(tmp_path: Path) -> None:
    web = Web()
    one, other = web.names(tmp_path / "names"), web.names(tmp_path / "names")
    assert one.addresses("a.example") == other.addresses("a.example") == [(socket.AF_INET, "8.8.8.1")]
    assert web.asked == ["a.example"]


def test_so_do_threads() -> None:
    began = threading.Event()

    def ask(name: str) -> list[FoundAddress]:
        assert not began.is_set()
        began.set()
        return [(socket.AF_INET, "8.8.8.8")]

    names = HostNames(ask=ask)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: names.addresses("many.example"), range(16)))
    assert found == [[(socket.AF_INET, "8.8.8.8")]] * 16


def test_answers_live_for_hours_and_failures_for_minutes_or_seconds() -> None:
    web = Web()
    names = web.names()
    for failure, life_s in (
        (None, module.ANSWER_LIFE_S),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), module.NO_ANSWER_LIFE_S),
        (socket.gaierror(socket.EAI_AGAIN, "no resolver"), module.NO_RESOLVER_LIFE_S),
    ):
        web.fails, web.asked = failure, []
        name = f"{life_s}.example"
        for wait_s in (0.0, life_s - 1, 2.0):
            web.now_s += wait_s
            if failure is None:
                names.addresses(name)
                continue
            with pytest.raises(socket.gaierror, match=str(failure.strerror)):
                names.addresses(name)
        assert web.asked == [name, name]


def test_a_name_that_does_not_answer_is_asked_for_again_after_minutes() -> None:
    web = Web()
    names = web.names()
    names.addresses("moved.example")
    names.forget("moved.example")
    names.addresses("moved.example")
    assert len(web.asked) == 1
    web.now_s += module.NO_ANSWER_LIFE_S
    names.addresses("moved.example")
    assert len(web.asked) == 2


def test_the_oldest_names_go_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    web = Web()
    names = web.names()
    for name in ("a", "b", "c", "b", "c", "a"):
        names.addresses(name)
    assert web.asked == ["a", "b", "c", "a"]


@pytest.mark.parametrize("exponent", [0.9, 1.0, 1.1])
def test_a_host_sends_no_more_packets_than_its_interface_may(tmp_path: Path, exponent: float) -> None:
    """Domains as in LAION-400M: 5 million, Zipf, at 1,000 pictures a second over 16 processes."""
    web = Web()
    processes = [web.names(tmp_path / "names") for _ in range(16)]
    share = np.cumsum(1 / np.arange(1, 5_000_001) ** exponent)
    drawn = np.searchsorted(share / share[-1], np.random.default_rng(0).random(8000)).tolist()
    for row, name in enumerate(drawn):
        web.now_s = max(web.now_s, 1000.0 + row / 1000)
        processes[row % 16].addresses(f"{name}.example")
    in_seconds = np.bincount(np.array(web.asked_s).astype(int))
    assert len(set(drawn)) == len(web.asked) > 2000
    assert PACKETS_PER_ASK * in_seconds.max() <= VPC_PACKETS_PER_S


def test_a_name_that_is_none_has_no_address() -> None:
    with pytest.raises(OSError):
        HostNames().addresses("a" * 64 + ".example")
