"""`upsert`, `start` and `stop` on a local control plane, one after the other and read by a program; `--json` alone."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline_definition.local.client import down

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command in an empty folder, on its own state, and return what it printed as JSON."""
    text = Path("params/local.yaml").read_text(encoding="utf-8").replace("rows: 4000", "rows: 16")
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(text, encoding="utf-8")

    def call(*words: str, status: int = 0) -> Any:
        command = [sys.executable, "-P", "-m", "pipeline_definition", *words, "--json"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == status, result.stderr
        return json.loads(result.stdout)

    yield call
    down(Path(".sd-pipeline"))


def is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_upsert_and_start_work_one_after_the_other_and_end_with_the_control_plane(run: Run) -> None:
    local = ("--local", "--params", "own.yaml")
    plane = run("local", "up")
    status = run("local", "status")
    assert {name: plane[name] for name in status} == status
    assert run("upsert", *local)["pipeline_arn"].endswith("pipeline/sd-pipeline-local")
    port = int(Path(".sd-pipeline/world/port").read_text(encoding="utf-8"))
    assert run("start", *local, "--dry-run")["execution_arn"] is None
    started = run("start", *local, "--set", "MaxFid=7")
    assert started["parameters"]["MaxFid"] == "7" and started["parameters"]["FsxId"].startswith("fs-")
    # The url table names the port: another server would mean another table, and all rows anew.
    assert int(Path(".sd-pipeline/world/port").read_text(encoding="utf-8")) == port
    assert is_served(port)
    assert run("stop", *local) == {"execution_arn": started["execution_arn"]}
    down(Path(".sd-pipeline"))
    deadline_s = time.monotonic() + 20
    while is_served(port) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert not is_served(port), "the pictures are served after the control plane's end"
    assert run("local", "status", status=1) is None


def test_a_folder_of_that_name_is_never_taken_for_a_package(run: Run) -> None:
    for name in ("params", "steps", "shapes", "pipeline_definition"):
        Path(name).mkdir()
        Path(name, "__init__.py").write_text("raise SystemExit('not ours')", encoding="utf-8")
    run("local", "up")
    run("upsert", "--local", "--params", "own.yaml")
    assert any(Path(".sd-pipeline/world/pictures").iterdir())


def test_what_people_read_goes_to_standard_error_beside_json(run: Run) -> None:
    words = ("--name", "birds", "--url-table", "s3://own-bucket/urls/", "--rows", "200", "--resolution-px", "256")
    made = run("init", *words, "--instance-type", "ml.p4d.24xlarge")
    assert made["file"] == "birds.yaml" and "UrlTable" in made["notes"][0]
