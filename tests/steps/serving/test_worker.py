import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from steps.errors import StepError
from steps.serving.batch_queue import BatchQueue, Ticket
from steps.serving.errors import ClosedError, RenderError
from steps.serving.metrics import ServingMetrics
from steps.serving.pictures import PictureJob, Shape
from steps.serving.worker import ModelWorker
from tests.steps.serving.fakes import FakeRenderer
from tests.steps.serving.waiting import until

SHAPE = Shape(8, 8, 1, 3.0, "ddim")
BAD_SEED = 66


class Bench:
    """A worker around a fake renderer."""

    def __init__(self) -> None:
        self.renderer = FakeRenderer()
        self.queue = BatchQueue(16, 4, 0.0)
        self.worker = ModelWorker(self.renderer.load, self.queue, ServingMetrics())

    def start(self) -> None:
        self.worker.start()
        until(lambda: self.worker.state == "ready")

    def submit(self, *seeds: int) -> Ticket:
        ticket = Ticket(SHAPE, [PictureJob("", "", seed) for seed in seeds], time.monotonic() + 30)
        self.queue.submit(ticket)
        return ticket


def die_of_the_bad_seed(jobs: Sequence[PictureJob]) -> None:
    if jobs[0].seed == BAD_SEED:
        raise SystemExit


@pytest.fixture(name="bench")
def bench_fixture() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.renderer.gate.set()
    bench.renderer.loaded.set()
    bench.worker.stop(5)


def test_requests_are_drawn_in_order_and_together(bench: Bench) -> None:
    bench.start()
    bench.renderer.gate.clear()
    first = bench.submit(1)
    assert bench.renderer.started.wait(5)
    others = [bench.submit(2), bench.submit(3, 4)]
    bench.renderer.gate.set()
    for ticket in (first, *others):
        assert [picture.image.getpixel((0, 0))[0] for picture in ticket.future.result(5)] == [  # type: ignore[index]
            job.seed for job in ticket.jobs
        ]
    assert bench.renderer.batches == [[1], [2, 3, 4]]


def test_a_picture_that_fails_does_not_cost_its_batch_theirs(bench: Bench) -> None:
    def before(jobs: Sequence[PictureJob]) -> None:
        if any(job.seed == BAD_SEED for job in jobs):
            raise ValueError("cannot draw this")

    bench.renderer.before = before
    bench.start()
    bench.renderer.gate.clear()
    bench.submit(1)
    assert bench.renderer.started.wait(5)
    good, bad, pair = bench.submit(2), bench.submit(BAD_SEED), bench.submit(3, 4)
    bench.renderer.gate.set()
    assert len(good.future.result(5)) == 1
    assert len(pair.future.result(5)) == 2
    with pytest.raises(RenderError, match="the model failed"):
        bad.future.result(5)
    assert bench.worker.state == "ready"


def test_too_little_memory_for_a_batch_is_met_with_smaller_ones(bench: Bench) -> None:
    def before(jobs: Sequence[PictureJob]) -> None:
        if len(jobs) > 1:
            raise RenderError("the device has too little memory for this size")

    bench.renderer.before = before
    bench.start()
    assert len(bench.submit(1, 2, 3, 4).future.result(5)) == 4


def test_a_thread_that_dies_is_replaced(bench: Bench) -> None:
    bench.renderer.before = die_of_the_bad_seed
    bench.start()
    thread = bench.worker._thread
    with pytest.raises(RenderError, match="died"):
        bench.submit(BAD_SEED).future.result(5)
    assert len(bench.submit(1).future.result(5)) == 1
    assert bench.worker._thread is not thread
    assert (bench.worker.state, bench.worker.alive) == ("ready", True)


def test_while_a_thread_is_replaced_the_worker_never_looks_dead(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowToStart(threading.Thread):
        def start(self) -> None:
            time.sleep(0.2)
            super().start()

    bench.renderer.before = die_of_the_bad_seed
    bench.start()
    thread = bench.worker._thread
    monkeypatch.setattr("steps.serving.worker.threading.Thread", SlowToStart)
    ticket = bench.submit(BAD_SEED)
    seen = set()
    while bench.worker._thread is thread:
        seen.add(bench.worker.alive)
    seen.add(bench.worker.alive)
    assert seen == {True}
    with pytest.raises(RenderError, match="died"):
        ticket.future.result(5)


def test_a_thread_that_keeps_dying_fails_the_worker(bench: Bench) -> None:
    def before(jobs: Sequence[PictureJob]) -> None:
        raise SystemExit

    bench.renderer.before = before
    bench.start()
    for _ in range(3):
        with pytest.raises(RenderError):
            bench.submit(1).future.result(5)
    until(lambda: bench.worker.state == "failed")
    with pytest.raises(ClosedError):
        bench.submit(1)


def test_a_model_that_fails_its_self_test_fails_the_worker_and_all_who_wait(bench: Bench) -> None:
    def before(jobs: Sequence[PictureJob]) -> None:
        raise RuntimeError("device-side assert")

    bench.renderer.before = before
    bench.renderer.broken = True
    bench.start()
    bench.renderer.gate.clear()
    drawn = bench.submit(1)
    assert bench.renderer.started.wait(5)
    waiting = bench.submit(2)
    bench.renderer.gate.set()
    for ticket in (drawn, waiting):
        with pytest.raises(RenderError):
            ticket.future.result(5)
    until(lambda: bench.worker.state == "failed")
    assert "device lost" in bench.worker.failure


def test_a_batch_whose_clients_have_left_is_given_up(bench: Bench) -> None:
    bench.start()
    bench.renderer.gate.clear()
    left = bench.submit(1)
    assert bench.renderer.started.wait(5)
    left.future.cancel()
    stays = bench.submit(2)
    until(lambda: len(bench.renderer.batches) == 2)
    bench.renderer.gate.set()
    assert len(stays.future.result(5)) == 1


def test_a_device_that_hangs_is_noticed(bench: Bench) -> None:
    hang = FakeRenderer.render

    def render(*_: object) -> list[object]:
        time.sleep(0.3)
        return hang(bench.renderer, SHAPE, [PictureJob("", "", 1)], lambda: False)  # type: ignore[return-value]

    bench.renderer.render = render  # type: ignore[method-assign, assignment]
    bench.start()
    assert not bench.worker.stalled(0.1)
    ticket = bench.submit(1)
    until(lambda: bench.worker.stalled(0.1))
    ticket.future.result(5)
    until(lambda: not bench.worker.stalled(0.1))


@pytest.mark.parametrize("error", [StepError("no model_index.json"), OSError("disk")])
def test_a_model_that_cannot_be_loaded_fails_the_worker(bench: Bench, error: Exception) -> None:
    def load() -> FakeRenderer:
        raise error

    worker = ModelWorker(load, bench.queue, ServingMetrics())
    worker.start()
    until(lambda: worker.state == "failed")
    assert str(error) in worker.failure
    with pytest.raises(ClosedError):
        bench.submit(1)


def test_stopping_finishes_what_waits(bench: Bench) -> None:
    bench.start()
    bench.renderer.gate.clear()
    tickets = [bench.submit(seed) for seed in range(5)]
    bench.queue.close()
    bench.renderer.gate.set()
    bench.worker.stop(5)
    assert all(len(ticket.future.result(0)) == 1 for ticket in tickets)
    assert (bench.worker.state, bench.worker.alive) == ("stopped", False)
