"""A run while it runs: a table on a terminal, few plain lines in a file, a line of JSON for each change."""

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from params.layout import ENDED_STATUSES
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.jobs.planned import Values, planned_jobs
from pipeline_definition.runs.executions import Execution, ExecutionStep
from pipeline_definition.runs.live_view import print_json_lines, progress_text, show, steps_table
from pipeline_definition.runs.watch import Progress, RunningCost, Snapshot
from pipeline_definition.session import Target
from tests.pipeline_definition.definitions import definition_of

START = datetime(2026, 11, 24, 2, 17, tzinfo=UTC)
NAMES = ("Download", "Train", "Evaluate")
COST = RunningCost({"Download": 3.6, "Train": 360.0})


def step(name: str, status: str, seconds: float = 100.0, **more: Any) -> ExecutionStep:
    return ExecutionStep(name, status, START, START + timedelta(seconds=seconds), **more)


def train_line(done: int, **more: float) -> dict[str, Any]:
    line: dict[str, Any] = {"step": "train", "done": done, "total": 1000, "unit": "samples", "iterations_per_s": 6.1}
    return {**line, "remaining_s": 83.0, **more}


def snapshot(status: str, *steps: ExecutionStep, train: Progress | None = None, cost: RunningCost = COST) -> Snapshot:
    execution = Execution("arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/abc", status, "", steps)
    return Snapshot(execution, NAMES, {"Train": train} if train else {}, cost, is_local=not cost.usd_per_hour)


def course() -> list[Snapshot]:
    """Train at every percent, and then the end."""
    done = step("Download", "Succeeded")
    running = [
        snapshot("Executing", done, step("Train", "Executing"), train={"algo-1": train_line(10 * percent)})
        for percent in range(101)
    ]
    return [*running, snapshot("Succeeded", done, step("Train", "Succeeded"), step("Evaluate", "Succeeded"))]


def text_of(shown: Snapshot, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(steps_table(shown))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("status", ENDED_STATUSES)
def test_a_run_that_has_ended_is_watched_no_longer(status: str) -> None:
    assert snapshot(status).execution.is_finished


def test_the_table_tells_progress_speed_time_left_and_cost() -> None:
    line = train_line(420, cost_usd=12.4, remaining_usd=17.1)
    said = text_of(snapshot("Executing", step("Train", "Executing"), train={"algo-1": line, "algo-2": line}))
    train = next(row for row in said.splitlines() if "Train" in row)
    assert "42% of 1,000 samples, 6.10 it/s, 1:23 left, $12.40 so far, $17.10 to go" in train
    assert train.count("42%") == 1, "hosts that say the same are one"
    # 360 dollars an hour for 100 seconds.
    assert "1:40" in train and "$10.00" in train
    assert "about $10.00 so far" in said.splitlines()[0]
    assert re.search(r"·\s+Evaluate\s+waiting", said)
    assert train.count("━") == 6, "42 % of 16"


def test_on_this_machine_there_is_nothing_to_pay() -> None:
    said = text_of(snapshot("Executing", step("Train", "Executing"), cost=RunningCost()))
    assert "on this machine: nothing to pay" in said
    assert "$" not in said


def test_a_file_gets_a_plain_line_for_each_quarter_and_no_more() -> None:
    file = io.StringIO()
    execution = show(course(), Console(file=file, width=40))
    assert execution.status == "Succeeded"
    lines = file.getvalue().splitlines()
    assert "\x1b" not in file.getvalue()
    assert [line.split()[:2] for line in lines] == [
        ["Download", "Succeeded"],
        *[["Train", "Executing"]] * 5,
        ["Train", "Succeeded"],
        ["Evaluate", "Succeeded"],
    ]
    assert [line.split("% of")[0].split()[-1] for line in lines if "% of" in line] == ["0", "25", "50", "75", "100"]
    assert lines[1].split()[:4] == ["Train", "Executing", "1:40", "$10.00"]


def test_a_failure_is_said_in_its_first_line() -> None:
    file = io.StringIO()
    failed = snapshot("Failed", step("Train", "Failed", failure_reason="rank 1: [no memory]\nTraceback ..."))
    show([failed], Console(file=file, width=200))
    assert file.getvalue().rstrip().endswith("rank 1: [no memory]")


def test_programs_get_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    seen = course()
    print_json_lines([seen[0], seen[0], seen[42], seen[-1]])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["Executing", "Executing", "Succeeded"]
    assert lines[1]["steps"]["Train"]["progress"] == [train_line(420)]
    assert lines[1]["steps"]["Train"]["cost_usd"] == pytest.approx(10.0)
    assert lines[1]["cost_usd"] == pytest.approx(10.1)
    assert lines[1]["waiting"] == ["Evaluate"]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({}, ""),
        (
            {"done": 5, "total": 10, "unit": "rows", "per_s": 2.5, "remaining_s": 2},
            "50% of 10 rows, 2.5 rows/s, 0:02 left",
        ),
        (
            {"done": 10, "total": 10, "unit": "rows", "remaining_s": 0, "cost_usd": 1234.5},
            "100% of 10 rows, $1,234 so far",
        ),
    ],
)
def test_a_progress_line_in_words(said: dict[str, Any], text: str) -> None:
    assert progress_text(said) == text


def test_every_jobs_hosts_cost_their_price() -> None:
    prices, changes = load_prices(), {"TrainingInstanceCount": "2", "TrainingInstanceType": "ml.p4d.24xlarge"}
    found = RunningCost.load(Target("us-east-1"), definition_of("octank_100gb"), changes)
    assert found.usd_per_hour["Train"] == pytest.approx(2 * prices.instance_hour_usd("ml.p4d.24xlarge"))
    assert set(found.usd_per_hour) == {"Download", "Encode", "Tune", "Train", "Evaluate"}
    cached = step("Train", "Succeeded", cached=True)
    assert found.step_usd(cached) == 0.0
    assert found.step_usd(step("QualityGate", "Succeeded")) is None


def test_without_known_prices_nothing_is_said() -> None:
    definition = definition_of("octank_100gb")
    assert RunningCost.load(Target("us-east-1", "http://127.0.0.1:1"), definition, {}) == RunningCost()
    assert RunningCost.load(Target("eu-west-1"), definition, {}) == RunningCost()


def test_the_hosts_of_both_groups_of_a_training_cost() -> None:
    definition = definition_of("sd2_heterogeneous")
    groups = [job for job in planned_jobs(definition, Values(definition, {})) if job.step == "Train"]
    prices = load_prices().by_hosts()
    found = RunningCost.load(Target("us-east-1"), definition, {}).usd_per_hour["Train"]
    assert len(groups) == 2
    assert found == pytest.approx(sum(job.count * prices[job.instance.name] for job in groups))
