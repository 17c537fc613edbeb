import asyncio
import base64
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from steps.serving.app import create_app
from steps.serving.logs import JsonFormatter
from steps.serving.service import Service
from tests.steps.serving.conftest import ARGUMENTS, Serve
from tests.steps.serving.fakes import FakeRenderer
from tests.steps.serving.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(name="fake")
def fake_fixture() -> Iterator[FakeRenderer]:
    renderer = FakeRenderer()
    yield renderer
    renderer.gate.set()
    renderer.loaded.set()


def invoke(client: TestClient, accept: str = "*/*", **fields: Any) -> Any:
    return client.post("/invocations", json={"prompt": "a", **fields}, headers={"Accept": accept})


def invoke_in_background(client: TestClient, answers: list[Any], **fields: Any) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(invoke(client, **fields)))
    thread.start()
    return thread


def pixels(file: bytes) -> bytes:
    return Image.open(io.BytesIO(file)).tobytes()


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_prompt_gives_a_picture(endpoint: TestClient, form: str) -> None:
    answer = invoke(endpoint, f"image/{form}", seed=7, width=40)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{form}")
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.size) == (form.upper(), (40, 32))


def test_the_answer_names_seed_and_model_where_sagemaker_passes_them_on(endpoint: TestClient) -> None:
    answer = invoke(endpoint, seed=7)
    assert answer.headers["x-seed"] == "7"
    expected = f"seed=7;model={ARGUMENTS.model_name};flagged=unchecked;truncated=0;negative_truncated=0"
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == expected


def test_a_seed_that_the_server_chose_gives_the_same_picture_again(endpoint: TestClient) -> None:
    first = invoke(endpoint)
    again = invoke(endpoint, seed=int(first.headers["x-seed"]))
    # Files differ by their signatures.
    assert pixels(first.content) == pixels(again.content)
    assert invoke(endpoint).headers["x-seed"] != first.headers["x-seed"]


def test_several_pictures_come_as_json_and_equal_those_drawn_alone(endpoint: TestClient) -> None:
    answer = endpoint.post("/invocations", json={"prompts": ["a", "b"], "seed": 3}).json()
    assert [item["seed"] for item in answer["images"]] == [3, 4]
    alone = invoke(endpoint, prompt="b", seed=4)
    assert pixels(base64.b64decode(answer["images"][1]["image"])) == pixels(alone.content)


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{", JSON, 400, "not valid JSON"),
        (b"\xff\xfe", JSON, 400, "not valid JSON"),
        (b"", JSON, 400, "not valid JSON"),
        (b"[" * 2000, JSON, 400, "not valid JSON"),
        (b"[]", JSON, 422, "body"),
        (b'{"prompt": "a", "steps": 99}', JSON, 422, "steps: "),
        (b'{"prompt": "a"}', {"Content-Type": "text/plain"}, 415, "Content-Type"),
        (b'{"prompt": "a"}', {**JSON, "Content-Encoding": "gzip"}, 415, "Content-Encoding"),
        (b'{"prompt": "a"}', {**JSON, "Accept": "text/html"}, 406, "Accept"),
        (b'{"prompt": "' + b"a" * 2048 + b'"}', JSON, 413, "larger than 2048 bytes"),
    ],
)
def test_a_bad_request_gets_an_error_that_says_what_is_wrong(
    endpoint: TestClient, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    answer = endpoint.post("/invocations", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["status"] == status
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("GET", "/invocations", 405)])
def test_unknown_paths_and_methods_get_json_too(endpoint: TestClient, method: str, path: str, status: int) -> None:
    answer = endpoint.request(method, path)
    assert (answer.status_code, answer.json()["error"]["status"]) == (status, status)


def test_ping_is_green_only_when_the_model_is_ready(serve: Serve, fake: FakeRenderer) -> None:
    fake.loaded.clear()
    with serve(fake.load, wait=False) as (client, service):
        assert client.get("/ping").status_code == 503
        refused = invoke(client)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        fake.loaded.set()
        until(lambda: service.worker.state == "ready")
        assert client.get("/ping").json() == {"status": "ready", "model": "fake"}
        service.draining = True
        assert client.get("/ping").status_code == 503
        assert invoke(client).status_code == 503


def test_ping_turns_red_when_the_model_fails(serve: Serve, fake: FakeRenderer) -> None:
    with serve(fake.load) as (client, service):
        service.worker.fail("the device is gone")
        answer = client.get("/ping")
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the device is gone")


def test_a_full_queue_answers_429_with_a_time_to_come_back(serve: Serve, fake: FakeRenderer) -> None:
    fake.gate.clear()
    answers: list[Any] = []
    with serve(fake.load, max_batch_size=1) as (client, service):
        threads = [invoke_in_background(client, answers, seed=0)]
        assert fake.started.wait(5)
        threads += [invoke_in_background(client, answers, seed=seed) for seed in (1, 2, 3)]
        until(lambda: len(service.queue) == ARGUMENTS.queue_size)
        refused = invoke(client)
        assert refused.status_code == 429
        # SageMaker passes on the body alone.
        assert refused.json()["error"]["retry_after_s"] == int(refused.headers["retry-after"]) >= 1
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        fake.gate.set()
        for thread in threads:
            thread.join(10)
    assert [answer.status_code for answer in answers] == [200] * 4


def test_requests_that_share_a_shape_share_a_batch(serve: Serve, fake: FakeRenderer) -> None:
    fake.gate.clear()
    answers: list[Any] = []
    with serve(fake.load) as (client, service):
        threads = [invoke_in_background(client, answers, seed=0)]
        assert fake.started.wait(5)
        for seed, width in ((1, 32), (2, 40), (3, 32)):
            threads.append(invoke_in_background(client, answers, seed=seed, width=width))
            until(lambda seed=seed: len(service.queue) == seed)  # type: ignore[misc]
        fake.gate.set()
        for thread in threads:
            thread.join(10)
    assert fake.batches == [[0], [1, 3], [2]]
    assert len(answers) == 4


def test_a_request_that_takes_too_long_gets_504(serve: Serve, fake: FakeRenderer) -> None:
    fake.gate.clear()
    with serve(fake.load, timeout_s=0.2) as (client, service):
        assert invoke(client).status_code == 504
        assert service.in_flight == 0
        until(lambda: not service.worker._batch)


def test_a_request_whose_time_is_up_before_its_turn_is_told_to_come_back(serve: Serve, fake: FakeRenderer) -> None:
    fake.gate.clear()
    answers: list[Any] = []
    with serve(fake.load, timeout_s=0.5) as (client, _):
        running = invoke_in_background(client, answers)
        assert fake.started.wait(5)
        waiting = invoke(client, width=40)
        running.join(10)
    assert (waiting.status_code, "retry-after" in waiting.headers) == (429, True)
    assert [answer.status_code for answer in answers] == [504]


def test_behind_a_queue_that_keeps_requests_none_is_turned_away(serve: Serve, fake: FakeRenderer) -> None:
    fake.gate.clear()
    answers: list[Any] = []
    with serve(fake.load, max_batch_size=1, shed_load=False, timeout_s=600.0) as (client, service):
        count = 3 * ARGUMENTS.queue_size
        threads = [invoke_in_background(client, answers, seed=seed) for seed in range(count)]
        until(lambda: len(service.queue) == count - 1)
        fake.gate.set()
        for thread in threads:
            thread.join(20)
    assert [answer.status_code for answer in answers] == [200] * count


def test_a_model_failure_is_a_500_as_json(serve: Serve, fake: FakeRenderer) -> None:
    def before(jobs: object) -> None:
        raise ValueError("secret internals")

    fake.before = before
    with serve(fake.load) as (client, _):
        answer = invoke(client)
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "the model failed")


def test_an_error_in_the_server_itself_is_a_500_as_json(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("steps.serving.media.choose", broken)
    with serve(FakeRenderer().load) as (client, service):
        answer = invoke(client)
        assert service.in_flight == 0
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "the server failed")


async def _leave_in_the_middle(service: Service, fake: FakeRenderer) -> None:
    app = create_app(service)
    body = json.dumps({"prompt": "a", "seed": 1}).encode()
    left = asyncio.Event()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/invocations",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    request = asyncio.create_task(app(scope, receive, send))
    await asyncio.to_thread(fake.started.wait, 5)
    left.set()
    await asyncio.wait_for(request, 5)


def test_a_client_that_leaves_frees_the_model(serve: Serve, fake: FakeRenderer) -> None:
    fake.gate.clear()
    with serve(fake.load) as (_, service):
        asyncio.run(_leave_in_the_middle(service, fake))
        until(lambda: not service.worker._batch)
        assert service.in_flight == 0
        assert 'serving_requests_total{status="499"} 1.0' in service.metrics.text().decode()


def test_metrics_count_answers_and_pictures(serve: Serve) -> None:
    with serve(FakeRenderer().load) as (client, _):
        invoke(client, num_images=2)
        invoke(client, steps=0)
        text = client.get("/metrics").text
    for line in (
        'serving_requests_total{status="200"} 1.0',
        'serving_requests_total{status="422"} 1.0',
        "serving_pictures_total 2.0",
        "serving_batch_pictures_sum 2.0",
        "serving_ready 1.0",
        "serving_in_flight_requests 0.0",
        'serving_model_info{identity="fake"} 1.0',
    ):
        assert line in text


@pytest.mark.parametrize("logged", [False, True])
def test_prompts_are_logged_only_where_the_settings_say_so(
    serve: Serve, caplog: pytest.LogCaptureFixture, logged: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    with serve(FakeRenderer().load, log_prompts=logged) as (client, _):
        invoke(client, prompt="a secret", negative_prompt="another secret", seed=5)
        invoke(client, prompt="secret" * 30, sampler="secret")
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("steps.")]
    assert ("secret" in "".join(lines)) is logged
    (served,) = (line for line in map(json.loads, lines) if line.get("status") == 200)
    assert (served["message"], served["seed"], served["pictures"]) == ("invocation", 5, 1)


def test_a_long_prompt_is_read_to_its_end_where_it_is_asked_for_and_told_as_cut_otherwise(endpoint: TestClient) -> None:
    texts = {"prompt": "a" * 20, "negative_prompt": "b" * 20, "seed": 1}
    cut = invoke(endpoint, "application/json", **texts).json()
    whole = invoke(endpoint, "application/json", **texts, long_prompts=True)
    told = [(one["truncated"], one["negative_truncated"]) for one in (cut["images"][0], whole.json()["images"][0])]
    assert told == [(True, True), (False, False)]
    assert whole.json()["settings"]["long_prompts"] is True
    assert whole.headers["x-amzn-sagemaker-custom-attributes"].endswith("truncated=0;negative_truncated=0")
    beyond = invoke(endpoint, negative_prompt="b" * 49, long_prompts=True)
    assert beyond.headers["x-amzn-sagemaker-custom-attributes"].endswith("truncated=0;negative_truncated=1")


def test_a_file_says_that_its_prompt_was_read_with_weights(endpoint: TestClient) -> None:
    said = [Image.open(io.BytesIO(invoke(endpoint, long_prompts=long).content)).text for long in (False, True)]
    assert ("Long prompts" in said[0], said[1]["Long prompts"]) == (False, "True")


def test_notation_that_is_not_read_is_refused_only_where_it_would_be_read(endpoint: TestClient) -> None:
    answer = invoke(endpoint, prompt="a [cat:dog:0.5]", long_prompts=True)
    assert answer.status_code == 422
    assert "does not read '[cat:dog:0.5]'" in answer.json()["error"]["message"]
    assert "reads weights from 0 to 10, not -1" in invoke(endpoint, negative_prompt="(a:-1)", long_prompts=True).text
    assert invoke(endpoint, prompt="a [cat:dog:0.5]").status_code == 200
