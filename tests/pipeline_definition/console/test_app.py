"""What the console's server answers: to its own page, to another page, to a person who may only read."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipeline_definition.commands.options import Reply
from pipeline_definition.console.app import READ_ONLY, console_app
from pipeline_definition.console.board import Board
from pipeline_definition.errors import UsageError
from tests.pipeline_definition.fake_aws import FakeTarget, refused
from tests.pipeline_definition.local.conftest import training
from tests.pipeline_definition.packages import described

ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/abcdefghijkl"
PACKAGE = described(1)["ModelPackageArn"]
HERE = "http://127.0.0.1:8000"
SECRET = "AKIA" + "Q" * 16
DEFINITION = {
    "Version": "2020-12-01",
    "Parameters": [
        {"Name": "MaxFid", "Type": "Float", "DefaultValue": 30.5, "Description": "The gate <b>passes</b> at this FID"},
        {"Name": "Table", "Type": "String", "DefaultValue": f"s3://bucket/?sig={SECRET}", "Description": "Of rows"},
    ],
    "Steps": [training("Train")],
}


class Account:
    """SageMaker as this page sees it; it notes what is changed."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.package = described(1) | {"ApprovalDescription": f"<i>{SECRET}</i>"}

    def target(self) -> FakeTarget:
        def note(name: str) -> Any:
            def call(**request: Any) -> dict[str, Any]:
                request.pop("ClientRequestToken", None)
                self.sent.append((name, request))
                return {"PipelineExecutionArn": ARN} if "execution" in name else {"ModelPackageArn": PACKAGE}

            return call

        started = {"PipelineExecutionArn": ARN, "PipelineExecutionStatus": "Failed", "StartTime": datetime.now(UTC)}
        step = {
            "StepName": "Train",
            "StepStatus": "Failed",
            "StartTime": datetime(2026, 11, 1, tzinfo=UTC),
            "EndTime": datetime(2026, 11, 2, tzinfo=UTC),
            "FailureReason": f"<script>no</script> {SECRET}",
            "Metadata": {"TrainingJob": {"Arn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/t"}},
        }
        text = json.dumps(DEFINITION)
        sagemaker = {
            "describe_pipeline": lambda **_: {"PipelineDefinition": text},
            "list_pipeline_executions": lambda **_: {"PipelineExecutionSummaries": [started]},
            "describe_pipeline_execution": lambda **_: {"PipelineExecutionStatus": "Failed"},
            "list_pipeline_execution_steps": lambda **_: {"PipelineExecutionSteps": [step]},
            "describe_pipeline_definition_for_execution": lambda **_: {"PipelineDefinition": text},
            "list_pipeline_parameters_for_execution": lambda **_: {"PipelineParameters": []},
            "list_model_packages": lambda **_: {"ModelPackageSummaryList": [{"ModelPackageArn": PACKAGE}]},
            "describe_model_package": lambda **_: self.package,
            "list_endpoints": lambda **_: {"Endpoints": [{"EndpointName": "e", "EndpointStatus": "InService"}]},
            **{f"{name}_pipeline_execution": note(f"{name}_pipeline_execution") for name in ("start", "stop", "retry")},
            "update_model_package": note("update_model_package"),
        }
        logs = {
            "describe_log_streams": lambda **_: {"logStreams": [{"logStreamName": "t/algo-1"}]},
            "get_log_events": lambda **_: {"events": [], "nextForwardToken": "end"},
        }
        return FakeTarget(answers={"sagemaker": sagemaker, "logs": logs})


@pytest.fixture
def account() -> Account:
    return Account()


def page(account: Account, may_write: bool = True, **headers: str) -> TestClient:
    """Return the browser of somebody who has the address."""

    def start(changes: list[str]) -> Reply:
        if changes == ["MaxFid=no"]:
            raise UsageError("MaxFid: not a number; write one")
        account.sent.append(("start", changes))
        return Reply({"execution_arn": ARN})

    def upsert() -> Reply:
        account.sent.append(("upsert", {}))
        return Reply({"pipeline_arn": "arn:p"})

    app = console_app(Board(account.target(), "p", "sd-pipeline", 0.0), upsert, start, may_write, "key")
    return TestClient(app, f"{HERE}/key/", headers={"Origin": HERE, **headers}, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("action", "content", "sent"),
    [
        ("upsert", {}, ("upsert", {})),
        ("start", {"changes": {"MaxFid": "20"}}, ("start", ["MaxFid=20"])),
        ("stop", {"run": ARN}, ("stop_pipeline_execution", {"PipelineExecutionArn": ARN})),
        ("retry", {"run": ARN}, ("retry_pipeline_execution", {"PipelineExecutionArn": ARN})),
        (
            "decide",
            {"package": PACKAGE, "decision": "Rejected", "reason": " pale "},
            (
                "update_model_package",
                {"ModelPackageArn": PACKAGE, "ModelApprovalStatus": "Rejected", "ApprovalDescription": "pale"},
            ),
        ),
    ],
)
def test_an_action_does_what_its_button_says_and_a_console_that_reads_refuses_it(
    account: Account, action: str, content: dict[str, Any], sent: tuple[str, Any]
) -> None:
    refused = page(account, may_write=False).post(action, json=content)
    assert (refused.status_code, refused.json()["detail"]) == (403, READ_ONLY)
    assert account.sent == []
    assert page(account).post(action, json=content).status_code == 200
    assert account.sent == [sent]


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9", "https://127.0.0.1:8000", "null", ""])
def test_an_action_that_another_page_sends_is_refused(account: Account, origin: str) -> None:
    assert page(account, Origin=origin).post("stop", json={"run": ARN}).status_code == 403
    assert account.sent == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000"])
def test_a_request_under_another_name_than_this_machines_is_refused(account: Account, host: str) -> None:
    client = page(account, Host=host, Origin=f"http://{host}")
    assert client.get("").status_code == 400
    assert client.post("stop", json={"run": ARN}).status_code == 400
    assert account.sent == []


@pytest.mark.parametrize("path", ["/", "/part/run", "/wrong/", "/docs", "/openapi.json"])
def test_without_the_key_there_is_nothing(account: Account, path: str) -> None:
    assert page(account).get(f"{HERE}{path}").status_code == 404


def test_the_form_has_the_definitions_own_descriptions_escaped_and_no_secret(account: Account) -> None:
    answer = page(account).get("")
    assert "The gate &lt;b&gt;passes&lt;/b&gt; at this FID" in answer.text and 'value="30.5"' in answer.text
    assert SECRET not in answer.text
    assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "part", [f"part/run?run={ARN}", "part/models", f"part/log?run={ARN}", "part/runs", "part/endpoints"]
)
def test_every_part_is_shown_escaped_and_without_secrets(account: Account, part: str) -> None:
    answer = page(account).get(part)
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text and "<script" not in answer.text and "<i>" not in answer.text


def test_a_failed_run_says_why_and_offers_to_go_on(account: Account) -> None:
    text = page(account).get(f"part/run?run={ARN}").text
    assert "&lt;script&gt;no&lt;/script&gt;" in text and 'data-post="retry"' in text and 'data-post="stop"' not in text
    assert "data-post" not in page(account, may_write=False).get(f"part/run?run={ARN}").text


def test_what_preflight_finds_is_told_and_nothing_starts(account: Account) -> None:
    answer = page(account).post("start", json={"changes": {"MaxFid": "no"}})
    assert (answer.status_code, answer.json()["detail"]) == (409, "MaxFid: not a number; write one")
    assert account.sent == []


def test_what_aws_refuses_is_told_without_secrets(account: Account) -> None:
    def denied(**_: Any) -> dict[str, Any]:
        raise refused("DescribeModelPackage", f"{SECRET} is not authorized")

    target = account.target()
    broken = {**target.answers, "sagemaker": {**target.answers["sagemaker"], "list_endpoints": denied}}
    app = console_app(Board(FakeTarget(answers=broken), "p", "g", 0.0), Reply, Reply, True, "key")
    answer = TestClient(app, f"{HERE}/key/").get("part/endpoints")
    assert answer.status_code == 409 and "is not authorized" in answer.json()["detail"]
    assert SECRET not in answer.text
