import concurrent.futures
import http.client
import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from shapes import web

PICTURE = "00001v1.jpg"
DRIP_S = 1.0


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("web")
    for part, body in (("pictures", jpeg(128)), ("small", jpeg(24)), ("corrupt", b"\xff\xd8\xff\xe0nothing")):
        (folder / part).mkdir()
        (folder / part / PICTURE).write_bytes(body)
    (folder / "secret.jpg").write_bytes(b"no part of the web")
    server, (listening, address) = web.server_of(web.web(folder, DRIP_S)), web.listen(0)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield int(address.rpartition(":")[2])
    server.should_exit = True
    thread.join()


def jpeg(side_px: int) -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (side_px, side_px), (38, 82, 208)).save(body, "JPEG")
    return body.getvalue()


def ask(port: int, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(web.HOST, port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("part", ["pictures", "copy", "small", "noai"])
def test_pictures_are_served_whole_with_their_media_type(port: int, part: str) -> None:
    status, headers, body = ask(port, f"/{part}/{PICTURE}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(body)).size == ((24, 24) if part == "small" else (128, 128))


def test_the_owners_wish_is_said_for_noai_only(port: int) -> None:
    assert ask(port, f"/noai/{PICTURE}")[1]["X-Robots-Tag"] == "noai"
    assert "X-Robots-Tag" not in ask(port, f"/pictures/{PICTURE}")[1]


@pytest.mark.parametrize(
    "path",
    [f"/missing/{PICTURE}", "/pictures/99999v1.jpg", "/", "/pictures/", f"/unknown/{PICTURE}", "/secret.jpg",
     "/pictures/../secret.jpg", "/pictures/%2e%2e/secret.jpg", f"//{PICTURE}"],
)  # fmt: skip
def test_anything_else_is_not_found(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert (status, body) == (404, b"")


def test_a_redirect_leads_to_the_picture(port: int) -> None:
    status, headers, _ = ask(port, f"/redirect/{PICTURE}")
    assert (status, headers["Location"]) == (302, f"/pictures/{PICTURE}")


def test_a_flaky_picture_fails_once(port: int) -> None:
    statuses = [ask(port, f"/flaky/{PICTURE}")[0] for _ in range(3)]
    assert statuses == [500, 200, 200]


def test_a_corrupt_picture_says_that_it_is_one(port: int) -> None:
    status, headers, body = ask(port, f"/corrupt/{PICTURE}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert body == b"\xff\xd8\xff\xe0nothing"


def test_a_slow_picture_drips_but_ends(port: int) -> None:
    started_s = time.monotonic()
    _, _, body = ask(port, f"/slow/{PICTURE}")
    assert body == ask(port, f"/pictures/{PICTURE}")[2]
    assert 0.8 * DRIP_S <= time.monotonic() - started_s < 5 * DRIP_S


def test_a_client_that_hangs_up_on_a_drip_is_let_go_without_a_word(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    connection = http.client.HTTPConnection(web.HOST, port, timeout=10)
    connection.request("GET", f"/slow/{PICTURE}")
    connection.getresponse().close()
    connection.close()
    time.sleep(1.2 * DRIP_S)
    assert capfd.readouterr() == ("", "")
    assert ask(port, f"/pictures/{PICTURE}")[0] == 200


def test_head_has_no_body(port: int) -> None:
    status, headers, body = ask(port, f"/pictures/{PICTURE}", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(jpeg(128))


def test_64_clients_at_once_all_get_their_pictures(port: int) -> None:
    barrier = threading.Barrier(64)

    def client(_: int) -> list[int]:
        barrier.wait()
        return [ask(port, f"/pictures/{PICTURE}")[0] for _ in range(3)]

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert [*pool.map(client, range(64))] == [[200] * 3] * 64


def test_a_connection_is_kept_for_the_next_request(port: int) -> None:
    connection = http.client.HTTPConnection(web.HOST, port, timeout=10)
    for path in (f"/pictures/{PICTURE}", f"/missing/{PICTURE}", f"/pictures/{PICTURE}"):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert not answer.will_close
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_writes_its_port_and_ends_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    port_file = tmp_path / "state" / "port"
    command = [sys.executable, "-m", "shapes", "serve", "--folder", str(tmp_path), "--port-file", str(port_file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + 30
        while not port_file.exists() and time.monotonic() < deadline_s and process.poll() is None:
            time.sleep(0.05)
        connection = http.client.HTTPConnection(web.HOST, int(port_file.read_text()), timeout=10)
        connection.request("GET", "/pictures/00000v1.png")
        assert connection.getresponse().read() == b""
        connection.close()
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, "")
    assert output.startswith(f"serving {tmp_path} at http://127.0.0.1:")
