"""`sd-pipeline compare` against real sockets, and against the variants of an endpoint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline_definition.cli import app
from pipeline_definition.errors import OperatorError
from pipeline_definition.prompting import comparison
from pipeline_definition.prompting.clip_scores import ClipScores
from pipeline_definition.prompting.comparison import contenders_of
from tests.pipeline_definition.fake_aws import FakeTarget
from tests.pipeline_definition.prompting.conftest import DrawingServer

PARAMS = ("--params", "params/local.yaml")


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[DrawingServer]]:
    import threading

    monkeypatch.setattr(comparison, "score_pictures", lambda pairs, _: ClipScores((0.25,) * len(pairs), "c" * 64))
    with DrawingServer() as first, DrawingServer() as second:
        threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in (first, second)]
        for thread in threads:
            thread.start()
        yield [first, second]
        for server, thread in zip((first, second), threads, strict=True):
            server.shutdown()
            thread.join(10)


def invoked(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments, *PARAMS])


def test_two_servers_draw_the_same_requests_onto_one_page(servers: list[DrawingServer], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a ring\n\na bar\n")
    addresses = [word for server in servers for word in ("--endpoint", server.url)]
    page = tmp_path / "page.html"
    done = invoked("a bar", "--prompts", f"{tmp_path}/prompts.txt", *addresses, "--images", "2", "--seed", "5",
                   "--steps", "3", "-o", str(page), "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert [model["name"] for model in found["models"]] == [server.url for server in servers]
    assert [(model["images"], model["clip_score"]) for model in found["models"]] == [(4, 0.25), (4, 0.25)]
    asked = [[(r["prompt"], r["seed"], r["steps"]) for r in server.requests[1:]] for server in servers]
    assert asked[0] == asked[1] == [(text, seed, 3) for text in ("a bar", "a ring") for seed in (5, 6)]
    assert page.read_text().count("<img ") == 8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "nothing to draw"),
        (("x", "--endpoint", "http://127.0.0.1:1"), "one model alone cannot be compared"),
        (("x", "--prompts", "none.txt"), "--prompts none.txt: cannot be read"),
        (("x", "--endpoint", "http://a", "--endpoint", "http://b", "--variant", "c"), "give one --endpoint"),
    ],
)
def test_a_command_line_that_compares_nothing_says_what_is_missing(arguments: tuple[str, ...], reason: str) -> None:
    done = invoked(*arguments)
    assert done.exit_code != 0
    assert reason in done.output + (done.stderr or "")


def aws(*names: str) -> FakeTarget:
    """An endpoint with these variants."""
    variants = [
        {"VariantName": name, "ModelName": name, "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
        for name in names
    ]
    from datetime import UTC, datetime

    at = datetime(2026, 11, 1, tzinfo=UTC)
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/sd"
    endpoint = {
        "EndpointName": "sd",
        "EndpointArn": arn,
        "EndpointConfigName": "sd-7",
        "EndpointStatus": "InService",
        "CreationTime": at,
        "LastModifiedTime": at,
    }
    config = {
        "EndpointConfigName": "sd-7",
        "EndpointConfigArn": arn,
        "ProductionVariants": variants,
        "CreationTime": at,
    }
    answers = {"describe_endpoint": lambda **_: endpoint, "describe_endpoint_config": lambda **_: config}
    return FakeTarget(answers={"sagemaker": answers, "sagemaker-runtime": {}})


def test_the_variants_of_an_endpoint_are_the_contenders_with_their_price() -> None:
    found = contenders_of(lambda: aws("production", "beside"), ["sd"], [])
    assert [contender.name for contender in found] == ["production", "beside"]
    assert [contender.endpoint.name for contender in found] == ["sd/production", "sd/beside"]
    assert all(contender.usd_per_hour and contender.usd_per_hour > 0.5 for contender in found)
    chosen = contenders_of(lambda: aws("a", "b", "c"), ["sd"], ["c", "a"])
    assert [contender.name for contender in chosen] == ["c", "a"]


def test_an_unknown_variant_and_a_lonely_one_are_refused() -> None:
    with pytest.raises(OperatorError, match="no variant 'other'; it has production, beside"):
        contenders_of(lambda: aws("production", "beside"), ["sd"], ["other"])
    with pytest.raises(OperatorError, match="promote latest --beside pretrained"):
        contenders_of(lambda: aws("production"), ["sd"], [])
