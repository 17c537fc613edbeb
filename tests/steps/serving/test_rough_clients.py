"""Slow clients, disconnects in mid-request, dying workers and a deploy, on a real socket.

A model's thread that dies is replaced while the process stays; a model that is broken ends the process non-zero, so
that the host starts another one: a CUDA error cannot be mended inside the process that had it.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from steps.serving.pictures import PictureJob
from tests.steps.serving.conftest import ARGUMENTS
from tests.steps.serving.fakes import FakeRenderer
from tests.steps.serving.test_server import Running
from tests.steps.serving.waiting import until

HEAD = "POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture(name="renderer")
def renderer_fixture() -> Iterator[FakeRenderer]:
    renderer = FakeRenderer()
    yield renderer
    renderer.gate.set()


@pytest.fixture(name="running")
def running_fixture(renderer: FakeRenderer) -> Iterator[Running]:
    running = Running(renderer, ARGUMENTS.model_copy(update={"body_timeout_s": 1.0, "queue_size": 64}))
    until(lambda: running.service.worker.state == "ready")
    yield running
    running.service.draining = True
    running.thread.join(20)
    assert not running.thread.is_alive()


def request(seed: int = 1) -> bytes:
    body = json.dumps({"prompt": "a", "seed": seed})
    return (HEAD.format(len(body)) + body).encode()


def connect(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    """Read one answer to its last byte."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(65536)
        if not part:
            return answer
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(
        next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def test_slow_clients_get_408_and_keep_nobody_else_waiting(running: Running) -> None:
    slow = [connect(running) for _ in range(20)]
    for connection in slow:
        connection.sendall(request()[:-5])
    # All of them hang, and a quick one is served at once.
    with connect(running) as quick:
        quick.sendall(request())
        assert status(read_all(quick)) == 200
    assert running.service.in_flight == 20
    assert {status(read_all(connection)) for connection in slow} == {408}
    for connection in slow:
        connection.close()
    until(lambda: running.service.in_flight == 0)


def test_a_client_that_reads_its_answer_slowly_keeps_nobody_else_waiting(running: Running) -> None:
    with connect(running) as slow, connect(running) as quick:
        slow.sendall(request(1))
        until(lambda: len(running.service.worker._batch) == 0 and bool(running.service.worker.renderer.batches))  # type: ignore[union-attr]
        quick.sendall(request(2))
        assert status(read_all(quick)) == 200
        first = slow.recv(16)
        assert first.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing_behind(
    running: Running, renderer: FakeRenderer, part: float
) -> None:
    for _ in range(5):
        with connect(running) as leaving:
            leaving.sendall(request()[: int(part * len(request()))])
    with connect(running) as staying:
        staying.sendall(request(2))
        assert status(read_all(staying)) == 200
    until(lambda: running.service.in_flight == 0)
    # Nothing was drawn for those whose request never was whole.
    assert renderer.batches == [[2]]


def test_clients_that_leave_while_they_wait_are_not_drawn(running: Running, renderer: FakeRenderer) -> None:
    renderer.gate.clear()
    with connect(running) as staying:
        staying.sendall(request(1))
        assert renderer.started.wait(10)
        leaving = [connect(running) for _ in range(8)]
        for seed, connection in enumerate(leaving, 10):
            connection.sendall(request(seed))
        until(lambda: len(running.service.queue) == 8)
        for connection in leaving:
            connection.close()
        until(lambda: running.service.in_flight == 1)
        renderer.gate.set()
        assert status(read_all(staying)) == 200
    assert renderer.batches == [[1]]


def test_a_thread_that_dies_is_replaced_and_the_next_request_is_drawn(running: Running, renderer: FakeRenderer) -> None:
    def before(jobs: Sequence[PictureJob]) -> None:
        if jobs[0].seed == 13:
            raise SystemExit

    renderer.before = before
    with connect(running) as first, connect(running) as second:
        first.sendall(request(13))
        failed = read_all(first)
        assert (status(failed), b"died" in failed) == (500, True)
        second.sendall(request(2))
        assert status(read_all(second)) == 200
    assert running.service.ready


def test_a_broken_model_answers_everyone_and_ends_the_process_with_an_error(
    running: Running, renderer: FakeRenderer
) -> None:
    def before(jobs: Sequence[PictureJob]) -> None:
        raise RuntimeError("device-side assert")

    renderer.before, renderer.broken = before, True
    renderer.gate.clear()
    connections = [connect(running) for _ in range(6)]
    for seed, connection in enumerate(connections):
        connection.sendall(request(seed))
    until(lambda: running.service.in_flight == 6)
    renderer.gate.set()
    answers = [read_all(connection) for connection in connections]
    assert {status(answer) for answer in answers} <= {500, 503}
    assert all(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] for answer in answers)
    running.thread.join(20)
    assert "self-test" in str(running.error)
    for connection in connections:
        connection.close()


def test_a_deploy_finishes_what_was_taken_in_and_turns_the_rest_away(running: Running, renderer: FakeRenderer) -> None:
    renderer.gate.clear()
    taken = [connect(running) for _ in range(5)]
    for seed, connection in enumerate(taken):
        connection.sendall(request(seed))
    until(lambda: running.service.in_flight == 5)
    # What SIGTERM does (`DrainingServer.handle_exit`).
    running.service.draining = True
    with connect(running) as late:
        late.sendall(request(99))
        refused = read_all(late)
    assert (status(refused), b"retry-after" in refused.lower()) == (503, True)
    opened = threading.Timer(0.2, renderer.gate.set)
    opened.start()
    assert [status(read_all(connection)) for connection in taken] == [200] * 5
    for connection in taken:
        connection.close()
    started_s = time.monotonic()
    running.thread.join(20)
    assert (running.error, time.monotonic() - started_s < 15) == (None, True)
