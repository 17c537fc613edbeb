"""A person runs a pipeline from the console in a real browser, on a local control plane with tiny programs."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from pipeline_definition.commands.options import Reply, parse_changes
from pipeline_definition.console.app import console_app
from pipeline_definition.console.board import Board
from pipeline_definition.runs.executions import Executions
from pipeline_definition.session import Target
from tests.pipeline_definition.local.conftest import ROLE, World, processing, training
from tests.pipeline_definition.pages.axe import serious
from tests.pipeline_definition.pages.chromium import Browser, browser, find_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed"),
]
STATUS = "document.querySelector('#status')?.textContent"
TEXT = "document.querySelector('[data-part={}]').textContent"
HOSTILE = "<img src=x onerror=document.title='taken'>"
SECRET = "AKIA" + "Q" * 16
DEFINITION = {
    "Version": "2020-12-01",
    "Metadata": {},
    "Parameters": [
        {"Name": "Seconds", "Type": "String", "DefaultValue": "0", "Description": f"How long Rest takes {HOSTILE}"},
        {"Name": "Rate", "Type": "Float", "DefaultValue": 0.5, "Description": "Times nine is the first loss"},
        {"Name": "Kind", "Type": "String", "DefaultValue": "a", "EnumValues": ["a", "b"], "Description": "Of rest"},
    ],
    "Steps": [
        processing("Say", "say", HOSTILE, f"key {SECRET}"),
        processing("Rest", "sleep", {"Get": "Parameters.Seconds"}, DependsOn=["Say"]),
        training(
            "Train",
            arguments={"HyperParameters": {"rate": {"Std:Join": {"On": "", "Values": [{"Get": "Parameters.Rate"}]}}}},
            DependsOn=["Rest"],
        ),
        {
            "Name": "Register",
            "Type": "RegisterModel",
            "Arguments": {
                "ModelPackageGroupName": "painters",
                "ModelApprovalStatus": "PendingManualApproval",
                "InferenceSpecification": {
                    "Containers": [
                        {
                            "Image": "test/painter:1",
                            "ModelDataUrl": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"},
                        }
                    ],
                    "SupportedContentTypes": ["application/json"],
                    "SupportedResponseMIMETypes": ["application/json"],
                },
                "CustomerMetadataProperties": {"fid": "12.5"},
            },
        },
    ],
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, images={"test/painter*": ["python", "-m", "tests.pipeline_definition.console.painter"]})
    with made.up():
        made.client("s3").create_bucket(Bucket="bucket")
        yield made


@contextmanager
def console(world: World, may_write: bool = True) -> Iterator[str]:
    """Serve the page in a thread; yield its address."""
    assert world.plane is not None
    target = Target("us-east-1", world.plane.url)
    executions = Executions(target)

    def upsert() -> Reply:
        return Reply({"pipeline_arn": executions.upsert("tiny", json.dumps(DEFINITION), ROLE, "bucket")})

    def start(changes: list[str]) -> Reply:
        return Reply({"execution_arn": executions.start("tiny", parse_changes(changes))})

    app = console_app(Board(target, "tiny", "painters", 0.2), upsert, start, may_write, "key")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/key/"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Browser]:
    with browser(find_browser() or "", tmp_path / "profile") as opened:
        yield opened


def change(tab: Browser, name: str, value: str) -> None:
    tab.wait_for("document.readyState === 'complete'")
    box = f"document.querySelector('#start [name={name}]')"
    tab.evaluate(f"{box}.value = '{value}'")
    tab.evaluate(f"{box}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def click(tab: Browser, selector: str) -> None:
    tab.wait_for("document.readyState === 'complete'")
    button = f'document.querySelector("{selector}")'
    tab.wait_for(f"{button} && !{button}.disabled")
    tab.evaluate(f"{button}.click()")


def picture(tab: Browser, name: str) -> None:
    """Keep what people will look at, where somebody asks for it."""
    if folder := os.environ.get("CONSOLE_PICTURES"):
        tab.screenshot(Path(folder) / f"{name}.png")


def is_as_wide_as_the_window(tab: Browser) -> bool:
    excess: int = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return excess == 0


def test_a_run_is_started_stopped_retried_followed_approved_and_prompted(world: World, tab: Browser) -> None:
    with console(world) as address:
        seen = tab.open(address, 1280)
        assert "there is no pipeline tiny yet" in tab.evaluate("document.body.textContent")
        click(tab, "[data-post=upsert]")
        tab.wait_for("document.querySelector('#start')")
        shown = tab.evaluate("document.querySelector('#start').innerText")
        assert f"How long Rest takes {HOSTILE}" in shown and "Times nine is the first loss" in shown

        change(tab, "Seconds", "60")
        assert tab.evaluate("document.querySelector('#changes').textContent") == "changed: Seconds"
        click(tab, "#start button")
        tab.wait_for("document.querySelector('.steps .executing b')?.textContent === 'Rest'")
        tab.wait_for(f"{TEXT.format('log')}.includes('sleeping')")
        assert tab.evaluate("document.querySelectorAll('svg.lying .station').length") == 4
        click(tab, "[data-step=Say]")
        tab.wait_for(f"{TEXT.format('log')}.includes({json.dumps(HOSTILE)})")
        assert SECRET not in tab.evaluate("document.documentElement.outerHTML")
        picture(tab, "running")
        click(tab, "[data-post=stop]")
        tab.wait_for(f"{STATUS} === 'Stopped'")
        click(tab, "[data-post=retry]")
        tab.wait_for(f"{STATUS} === 'Executing'")
        click(tab, "[data-post=stop]")
        tab.wait_for(f"{STATUS} === 'Stopped'")

        change(tab, "Rate", "2")
        click(tab, "#start button")
        tab.wait_for(f"{STATUS} === 'Succeeded'")
        tab.wait_for("document.querySelector('#metrics')?.innerText.match(/loss\\s+2/)")
        assert tab.evaluate("document.querySelectorAll('.station.succeeded').length") == 8, "lying and standing"

        tab.wait_for("document.querySelector('[data-decide]')")
        assert "fid = 12.5" in tab.evaluate(TEXT.format("models"))
        tab.evaluate("document.querySelector('[data-decide] [name=reason]').value = 'looked at'")
        click(tab, "[data-decide] [value=Approved]")
        tab.wait_for(f"{TEXT.format('models')}.includes('looked at')")
        assert "Approved" in tab.evaluate(TEXT.format("models"))
        tab.wait_for(f"{TEXT.format('endpoints')}.includes('InService')")
        tab.evaluate("document.querySelector('[name=prompt]').value = 'a grey square'")
        tab.evaluate("document.querySelector('[name=seed]').value = '9'")
        click(tab, "#draw button")
        tab.wait_for("document.querySelector('#pictures img')?.naturalWidth === 16")
        assert "seed 9" in tab.evaluate("document.querySelector('#pictures').textContent")
        picture(tab, "done")
        assert serious(tab) == []
        assert is_as_wide_as_the_window(tab)

        asked = tab.seen()
        assert asked.complaints == [] == seen.complaints
        assert all(request.startswith(address) for request in asked.requests)
        assert tab.evaluate("document.title") != "taken"
        tab.open(address, 390)
        tab.wait_for(f"{STATUS} === 'Succeeded'")
        picture(tab, "phone")
        assert is_as_wide_as_the_window(tab)
    with console(world, may_write=False) as address:
        tab.open(address, 1280)
        tab.wait_for(f"{STATUS} === 'Succeeded'")
        assert tab.evaluate("document.querySelectorAll('form button:not(:disabled), [data-post]').length") == 0
        click(tab, ".runs a:not([aria-current])") if tab.wait_for(
            "document.querySelectorAll('.runs a').length"
        ) else None
        tab.wait_for(f"{STATUS} === 'Stopped'")
