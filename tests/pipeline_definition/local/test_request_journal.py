import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline_definition.local.records import clock
from pipeline_definition.local.request_journal import RequestJournal, changes_state, read_body, service_of

SIGNED = "AWS4-HMAC-SHA256 Credential=AKIASECRET/20260101/eu-west-1/{}/aws4_request, Signature=c0ffee"


def environ(service: str, method: str = "POST", path: str = "/", target: str = "", body: bytes = b"") -> dict[str, Any]:
    made = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": SIGNED.format(service),
        "wsgi.input": io.BytesIO(body),
    }
    return made | ({"HTTP_X_AMZ_TARGET": target} if target else {})


@pytest.mark.parametrize(
    ("request_environ", "body", "changes"),
    [
        (environ("sagemaker", target="SageMaker.CreateModel"), b"{}", True),
        (environ("sagemaker", target="SageMaker.DescribeModel"), b"{}", False),
        (environ("logs", target="Logs_20140328.PutLogEvents"), b"{}", False),
        (environ("events", target="AWSEvents.PutRule"), b"{}", True),
        (environ("s3", "PUT", "/bucket"), b"", True),
        (environ("s3", "PUT", "/bucket/key"), b"", False),
        (environ("s3", "GET", "/bucket"), b"", False),
        (environ("lambda", "POST", "/2015-03-31/functions"), b"{}", True),
        (environ("lambda", "GET", "/2015-03-31/functions"), b"", False),
    ],
)
def test_only_what_changes_motos_state_is_noted(request_environ: dict[str, Any], body: bytes, changes: bool) -> None:
    assert changes_state(request_environ, body) is changes


@pytest.mark.parametrize(("action", "changes"), [("CreateRole", True), ("GetRole", False)])
def test_query_requests_are_known_by_their_action(action: str, changes: bool) -> None:
    made = environ("iam") | {"CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8"}
    assert changes_state(made, f"Action={action}&Version=1".encode()) is changes


def test_requests_are_made_again_in_order(tmp_path: Path) -> None:
    journal = RequestJournal(tmp_path / "requests.jsonl")
    for number in range(3):
        journal.write(environ("iam", target="Iam.Create"), json.dumps({"number": number}).encode(), 1000.0 + number)
    seen = []

    def app(received: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        seen.append((json.loads(read_body(received))["number"], service_of(received)))
        start("200 OK" if len(seen) < 3 else "400 Bad Request", [])
        return [b""]

    assert journal.replay(app, {}) == ["Iam.Create: 400"]
    assert seen == [(0, "iam"), (1, "iam"), (2, "iam")]


def test_what_moto_kept_of_sagemaker_is_taken_up_once_at_its_own_time(tmp_path: Path) -> None:
    journal = RequestJournal(tmp_path / "requests.jsonl")
    for number, target in enumerate(("SageMaker.CreateModel", "SageMaker.CreateDomain")):
        journal.write(environ("sagemaker", target=target), b'{"ModelName": "m"}', time_s=1000.0 + number)
    taken: list[tuple[Any, float]] = []

    def create(request: Mapping[str, Any]) -> dict[str, Any]:
        taken.append((request["ModelName"], clock.now_s()))
        return {}

    def app(received: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        raise AssertionError("moto is not asked")

    for _ in range(2):  # what nothing here answers stays in the journal, and is named
        failures = RequestJournal(tmp_path / "requests.jsonl").replay(app, {"SageMaker.CreateModel": create})
        assert failures == ["SageMaker.CreateDomain: 'SageMaker.CreateDomain'"]
    assert taken == [("m", 1000.0)]


def test_no_signature_reaches_the_disk(tmp_path: Path) -> None:
    RequestJournal(tmp_path / "requests.jsonl").write(environ("iam"), b"", 0.0)
    text = (tmp_path / "requests.jsonl").read_text()
    assert "AKIASECRET" not in text and "c0ffee" not in text and "eu-west-1/iam" in text
