import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from steps.data.causes import FetchError
from steps.data.fetching import host_turns
from steps.data.fetching.host_turns import HostTurns, retry_after_s


def test_no_more_connections_to_a_host_than_asked_for() -> None:
    turns, active, most = HostTurns(1.0, connections=2), 0, 0
    lock = threading.Lock()

    def ask(_: int) -> None:
        nonlocal active, most
        with turns.turn("a"):
            with lock:
                active += 1
                most = max(most, active)
            time.sleep(0.01)
            with lock:
                active -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(16)))
        with turns.turn("a"), turns.turn("a"), turns.turn("b"):
            pass
    assert most == 2


def test_a_short_pause_is_waited_for_and_a_long_one_is_not() -> None:
    turns = HostTurns(max_wait_s=1.0)
    turns.pause("a", 0.1, time.monotonic(), "http_429")
    with turns.turn("a") as waited_s:
        assert waited_s >= 0.09
    turns.pause("a", 30.0, time.monotonic(), "http_503")
    with pytest.raises(FetchError, match="http_503"), turns.turn("a"):
        pass
    with turns.turn("b") as waited_s:
        assert waited_s < 0.1


def test_a_host_that_says_later_again_and_again_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = HostTurns(max_wait_s=1.0)
    for _ in range(host_turns.MAX_PAUSES):
        turns.pause("a", 0.0, time.monotonic(), "http_429")
        with turns.turn("a"):
            pass
    turns.pause("a", 0.0, time.monotonic(), "http_429")
    with pytest.raises(FetchError), turns.turn("a"):
        pass


def test_another_answer_begins_the_count_anew_unless_it_is_older_than_the_pause() -> None:
    turns, before_s = HostTurns(max_wait_s=1.0), time.monotonic()
    for _ in range(3 * host_turns.MAX_PAUSES):
        turns.pause("a", 0.0, time.monotonic(), "http_429")
        turns.answered("a", time.monotonic())
    with turns.turn("a"):
        pass
    turns.pause("a", 60.0, time.monotonic(), "http_429")
    turns.answered("a", before_s)
    with pytest.raises(FetchError), turns.turn("a"):
        pass


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("2", 2.0),
        (" 120 ", 120.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("9" * 400, 999999999.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float | None) -> None:
    assert retry_after_s(header, "Wed, 21 Oct 2026 07:28:00 GMT") == expected
