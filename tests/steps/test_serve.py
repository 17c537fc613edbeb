"""The server as a process, on loopback."""

import io
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from steps import serve
from steps.errors import StepError
from steps.serving.server import bind
from tests.steps.serving.served import Server
from tests.steps.serving.tiny_pipeline import write_pipeline
from tests.steps.serving.waiting import until


@pytest.fixture(name="base_dir")
def base_dir_fixture(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    return tmp_path


@pytest.fixture(name="launch")
def launch_fixture(base_dir: Path) -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def launch() -> Server:
        servers.append(Server(base_dir))
        return servers[-1]

    yield launch
    for server in servers:
        server.end()


def slow_upload(port: int) -> bytes:
    """Send half a request and wait for the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        connection.sendall(head + b'{"prompt"')
        return connection.recv(65536)


def leave_early(port: int) -> None:
    """Send a long request and hang up."""
    body = json.dumps({"prompt": "a", "steps": 500, "width": 64}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = "POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.3)


def test_a_server_lives_and_ends_well(launch: Callable[[], Server], base_dir: Path) -> None:
    write_pipeline(base_dir / "model")
    server = launch()
    seen: list[int] = []
    until(lambda: seen.append(server.ping()) or seen[-1] == 200, 240)  # type: ignore[func-returns-value]
    # It answered before the model was there, and said so.
    assert 503 in seen

    picture = server.invoke(seed=7)
    assert Image.open(io.BytesIO(picture.content)).size == (32, 32)
    assert picture.headers["x-amzn-sagemaker-custom-attributes"] == (
        "seed=7;model=tiny;flagged=unchecked;truncated=0;negative_truncated=0"
    )
    # Files differ by their signatures.
    again = server.invoke(seed=7)
    assert Image.open(io.BytesIO(again.content)).tobytes() == Image.open(io.BytesIO(picture.content)).tobytes()

    # Bodies of many megabytes are refused with an answer, not with a reset connection.
    large = httpx.post(
        f"{server.url}/invocations", content=b"a" * 9_000_000, headers={"Content-Type": "application/json"}
    )
    assert large.status_code == 413
    assert slow_upload(server.port).startswith(b"HTTP/1.1 408 ")

    # The picture of a client that leaves in the middle is not drawn to its end: three were, those answered.
    leave_early(server.port)
    assert server.invoke().status_code == 200
    assert b"serving_pictures_total 3.0" in httpx.get(f"{server.url}/metrics").content

    # SIGTERM: the health check turns red, the request that runs is finished, and the status is 0.
    answers: list[httpx.Response] = []
    running = threading.Thread(target=lambda: answers.append(server.invoke(steps=150)))
    running.start()
    until(lambda: b"serving_in_flight_requests 1.0" in httpx.get(f"{server.url}/metrics").content)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.ping() == 503)
    refused = server.invoke()
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    running.join(60)
    assert [answer.status_code for answer in answers] == [200]
    assert server.process.wait(20) == 0

    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    statuses = [line["status"] for line in lines if line["message"] == "invocation"]
    assert sorted(statuses) == [200, 200, 200, 200, 408, 413, 499, 503]


def test_a_folder_without_a_model_ends_the_process_with_the_reason(
    launch: Callable[[], Server], base_dir: Path
) -> None:
    server = launch()
    assert server.process.wait(120) == 1
    assert "model_index.json" in (base_dir / "output" / "failure").read_text()


def test_settings_come_from_the_environment_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_QUEUE_SIZE", "7")
    monkeypatch.setenv("SERVE_COMPILE", "true")
    arguments = serve.settings(["--batch-wait-ms", "2.5"])
    assert (arguments.queue_size, arguments.compile, arguments.batch_wait_ms) == (7, True, 2.5)
    assert serve.settings(["--queue-size", "9"]).queue_size == 9


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("SERVE_QUEUE_SIZ", "7", "queue_size"),
        ("SERVE_QUEUE_SIZE", "0", "queue_size"),
        ("SERVE_DEFAULT_SIZE_PX", "2048", "SERVE_DEFAULT_SIZE_PX is above SERVE_MAX_SIZE_PX"),
    ],
)
def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, said: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(StepError, match=said):
        serve.settings([])


@pytest.mark.parametrize("text", ["", "http", "0", "70000"])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", text)
    with pytest.raises(StepError, match="SAGEMAKER_BIND_TO_PORT"):
        serve.port()


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StepError, match=f"127.0.0.1:{port}"):
            bind("127.0.0.1", port)
