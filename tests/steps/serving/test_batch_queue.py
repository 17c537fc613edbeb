import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steps.serving.batch_queue import BatchQueue, Pace, Slot, Ticket
from steps.serving.errors import ClosedError, QueueFullError
from steps.serving.pictures import Picture, PictureJob, Shape

SMALL = Shape(32, 32, 2, 3.0, "ddim")
LARGE = Shape(64, 64, 2, 3.0, "ddim")
PICTURE = Picture(Image.new("RGB", (1, 1)), False, False)


def ticket(seeds: list[int], shape: Shape = SMALL, timeout_s: float = 60.0) -> Ticket:
    return Ticket(shape, [PictureJob("", "", seed) for seed in seeds], time.monotonic() + timeout_s)


def queue(max_requests: int = 8, max_batch_size: int = 4, wait_s: float = 0.0) -> BatchQueue:
    return BatchQueue(max_requests, max_batch_size, wait_s)


def seeds(batch: list[Slot]) -> list[int]:
    return [slot.job.seed for slot in batch]


def test_a_batch_takes_the_oldest_shape_and_whatever_shares_it() -> None:
    line = queue()
    for item in (ticket([1]), ticket([2], LARGE), ticket([3]), ticket([4], LARGE)):
        line.submit(item)
    assert seeds(line.next_batch()) == [1, 3]
    assert seeds(line.next_batch()) == [2, 4]


def test_a_request_larger_than_a_batch_is_spread_over_several() -> None:
    line = queue(max_batch_size=2)
    line.submit(ticket([1, 2, 3]))
    line.submit(ticket([4]))
    assert seeds(line.next_batch()) == [1, 2]
    assert seeds(line.next_batch()) == [3, 4]


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([SMALL, LARGE])), max_size=12), st.integers(1, 6))
def test_every_picture_is_drawn_once_and_no_batch_mixes_shapes(
    requests: list[tuple[int, Shape]], max_batch_size: int
) -> None:
    line = queue(max_requests=12, max_batch_size=max_batch_size)
    expected = []
    for number, (count, shape) in enumerate(requests):
        own = [100 * number + index for index in range(count)]
        expected += own
        line.submit(ticket(own, shape))
    line.close()
    drawn = []
    while batch := line.next_batch():
        assert len(batch) <= max_batch_size
        assert len({slot.ticket.shape for slot in batch}) == 1
        drawn += seeds(batch)
    assert sorted(drawn) == expected


def test_requests_beyond_the_bound_are_turned_away_with_a_time_to_come_back() -> None:
    line = queue(max_requests=2)
    line.submit(ticket([1]))
    line.submit(ticket([2]))
    with pytest.raises(QueueFullError) as caught:
        line.submit(ticket([3]))
    assert caught.value.retry_after_s >= 1


def test_a_request_that_would_be_late_is_turned_away_at_once() -> None:
    line = queue(max_batch_size=1)
    line.submit(ticket([1]))
    line.next_batch()
    line.learn(SMALL.work, 0.05)
    line.submit(ticket([2]))
    line.next_batch()
    with pytest.raises(QueueFullError):
        line.submit(ticket([3], timeout_s=0.04))
    line.submit(ticket([4], timeout_s=60))


def test_an_idle_model_tries_even_what_looks_late() -> None:
    line = queue(max_batch_size=1)
    line.submit(ticket([1]))
    line.next_batch()
    line.learn(SMALL.work, 0.05)
    waiting = threading.Thread(target=line.next_batch)
    waiting.start()
    time.sleep(0.01)
    line.submit(ticket([2], timeout_s=0.04))
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_waiting_request_that_its_batch_would_bring_too_late_is_turned_away() -> None:
    line = queue(max_batch_size=1)
    line.learn(SMALL.work, 0.01)
    line.submit(ticket([1]))
    line.next_batch()
    late, early = ticket([2], timeout_s=5.0), ticket([3])
    line.submit(late)
    line.submit(early)
    line.learn(1000 * SMALL.work, 10_000.0)
    assert seeds(line.next_batch()) == [3]
    assert isinstance(late.future.exception(0), QueueFullError)


@pytest.mark.parametrize("reason", ["cancelled", "expired"])
def test_a_request_that_nobody_waits_for_is_not_drawn(reason: str) -> None:
    line = queue()
    dead = ticket([1], timeout_s=0.0 if reason == "expired" else 60.0)
    line.submit(dead)
    if reason == "cancelled":
        dead.future.cancel()
    line.submit(ticket([2]))
    assert seeds(line.next_batch()) == [2]


def test_dead_requests_make_room() -> None:
    line = queue(max_requests=1)
    first = ticket([1])
    line.submit(first)
    first.future.cancel()
    line.submit(ticket([2]))
    assert len(line) == 1


def test_a_lone_client_never_waits_for_company() -> None:
    line = queue(wait_s=5.0)
    started_s = time.monotonic()
    for seed in range(3):
        line.submit(ticket([seed]))
        (slot,) = line.next_batch()
        slot.ticket.deliver(slot.index, PICTURE)
    assert time.monotonic() - started_s < 1.0


def test_clients_that_were_there_lately_are_waited_for() -> None:
    line = queue(wait_s=5.0)
    line.submit(ticket([1]))
    line.submit(ticket([2]))
    for slot in line.next_batch():
        slot.ticket.deliver(slot.index, PICTURE)
    line.submit(ticket([3]))
    late = threading.Timer(0.1, lambda: line.submit(ticket([4])))
    late.start()
    assert seeds(line.next_batch()) == [3, 4]
    late.join()


def test_the_wait_for_company_ends() -> None:
    line = queue(wait_s=0.05)
    line.submit(ticket([1]))
    line.submit(ticket([2]))
    line.next_batch()
    line.submit(ticket([3]))
    started_s = time.monotonic()
    assert seeds(line.next_batch()) == [3]
    assert 0.04 < time.monotonic() - started_s < 2.0


def test_a_full_batch_does_not_wait() -> None:
    line = queue(max_batch_size=2, wait_s=30.0)
    for seed in (1, 2, 3):
        line.submit(ticket([seed]))
    line.next_batch()
    line.submit(ticket([4]))
    assert seeds(line.next_batch()) == [3, 4]


def test_a_closed_queue_serves_what_it_holds_and_takes_nothing_in() -> None:
    line = queue()
    line.submit(ticket([1]))
    line.close()
    with pytest.raises(ClosedError):
        line.submit(ticket([2]))
    assert seeds(line.next_batch()) == [1]
    assert line.next_batch() == []


def test_abandoning_ends_every_waiting_request_with_the_error() -> None:
    line = queue()
    waiting = ticket([1])
    line.submit(waiting)
    line.abandon(RuntimeError("gone"))
    assert isinstance(waiting.future.exception(0), RuntimeError)
    assert line.next_batch() == []


def test_a_ticket_is_done_when_its_last_picture_is() -> None:
    pair = ticket([1, 2])
    first, second = (Picture(Image.new("RGB", (1, 1), level), False, False) for level in ("red", "blue"))
    pair.deliver(1, second)
    assert not pair.future.done()
    pair.deliver(0, first)
    assert pair.future.result(0) == [first, second]


def test_a_result_that_comes_after_the_client_left_is_dropped() -> None:
    left = ticket([1])
    left.future.cancel()
    left.deliver(0, PICTURE)
    left.fail(RuntimeError())
    assert left.future.cancelled()


def test_an_unknown_pace_predicts_nothing() -> None:
    assert Pace().seconds_for(1000.0) == 0.0


def test_the_predicted_time_is_proportional_to_the_work() -> None:
    pace = Pace()
    pace.record(100.0, 2.0)
    assert pace.seconds_for(50.0) == pytest.approx(1.0)


def test_the_predicted_time_follows_a_change_of_pace() -> None:
    pace = Pace()
    pace.record(100.0, 1.0)
    for _ in range(60):
        pace.record(100.0, 3.0)
    assert pace.seconds_for(100.0) == pytest.approx(3.0, rel=0.01)
