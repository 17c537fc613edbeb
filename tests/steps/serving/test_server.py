"""What only a server on a real socket shows, with a renderer that the test steers."""

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from params.programs import ServeArguments
from steps.errors import StepError
from steps.serving import server
from steps.serving.app import create_app
from steps.serving.service import Service
from tests.steps.serving.conftest import ARGUMENTS
from tests.steps.serving.fakes import FakeRenderer
from tests.steps.serving.waiting import until


class Running:
    """A server in a thread."""

    def __init__(self, renderer: FakeRenderer, arguments: ServeArguments = ARGUMENTS) -> None:
        self.service = Service(arguments, renderer.load)
        self.socket = server.bind("127.0.0.1", 0)
        self.port: int = self.socket.getsockname()[1]
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            server.run(create_app(self.service), self.service, [self.socket])
        except StepError as error:
            self.error = error

    def send(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(data)
            return connection.recv(65536)


@pytest.fixture(name="renderer")
def renderer_fixture() -> Iterator[FakeRenderer]:
    renderer = FakeRenderer()
    yield renderer
    renderer.gate.set()


@pytest.fixture(name="running")
def running_fixture(renderer: FakeRenderer) -> Iterator[Running]:
    running = Running(renderer, ARGUMENTS.model_copy(update={"timeout_s": 5.0}))
    until(lambda: running.service.worker.state in ("ready", "failed"))
    yield running
    running.service.draining = True
    running.thread.join(20)
    assert not running.thread.is_alive()


def test_an_answer_on_a_used_connection_does_not_wait_for_the_clients_acknowledgement() -> None:
    with server.bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_is_not_http_gets_a_well_formed_400(running: Running) -> None:
    assert running.send(b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_client_that_never_ends_its_headers_is_cut_off(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADERS_TIMEOUT_S", 0.2)
    assert running.send(b"POST /invocations HTTP/1.1\r\nHost:") == b""


def test_a_connection_is_used_again_after_slow_headers(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADERS_TIMEOUT_S", 0.7)
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(b"GET /ping HTTP/1.1\r\n")
            connection.sendall(b"Host: a\r\n\r\n")
            answer = b""
            while b"ready" not in answer:
                part = connection.recv(65536)
                assert part, "the connection was closed"
                answer += part
            assert answer.startswith(b"HTTP/1.1 200 ")
            threading.Event().wait(0.8)


def test_a_hanging_model_ends_the_server_with_an_error(renderer: FakeRenderer) -> None:
    def hang(*_: object) -> list[object]:
        renderer.started.set()
        renderer.gate.wait(20)
        return []

    renderer.render = hang  # type: ignore[method-assign, assignment]
    renderer.gate.clear()
    running = Running(renderer, ARGUMENTS.model_copy(update={"timeout_s": 0.3}))
    until(lambda: running.service.worker.state == "ready")
    body = b'{"prompt": "a"}'
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    assert running.send(head % len(body) + body).startswith(b"HTTP/1.1 50")
    running.thread.join(20)
    assert "no step" in str(running.error)


def test_a_failing_model_ends_the_server_with_its_reason(running: Running) -> None:
    running.service.worker.fail("the device is gone")
    running.thread.join(20)
    assert str(running.error) == "the device is gone"


def test_the_second_signal_does_not_wait(renderer: FakeRenderer) -> None:
    service = Service(ARGUMENTS, renderer.load)
    config = uvicorn.Config(create_app(service))
    draining = server.DrainingServer(config, service)
    service.in_flight = 1
    draining.handle_exit(signal.SIGTERM, None)
    assert (service.draining, asyncio.run(draining.on_tick(1)), draining.force_exit) == (True, False, False)
    draining.handle_exit(signal.SIGTERM, None)
    assert (asyncio.run(draining.on_tick(1)), draining.force_exit) == (True, True)


def test_a_drain_has_an_end(renderer: FakeRenderer) -> None:
    service = Service(ARGUMENTS.model_copy(update={"drain_timeout_s": 0.0}), renderer.load)
    draining = server.DrainingServer(uvicorn.Config(create_app(service)), service)
    service.in_flight = 1
    draining.handle_exit(signal.SIGTERM, None)
    assert asyncio.run(draining.on_tick(1))
