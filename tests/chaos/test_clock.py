"""The machine's clock jumps by days while the pipeline runs: every step ends as without."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.chaos.conftest import run_id
from tests.chaos.outcome import Outcome
from tests.end_to_end.conftest import LocalPipeline, clean_environment

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

CLOCK = Path(__file__).with_name("clock")


def test_a_clock_that_jumps_changes_nothing(pipeline: LocalPipeline, unbroken: Outcome) -> None:
    pipeline.down()
    environment = clean_environment()
    path = os.pathsep.join(filter(None, (str(CLOCK), environment.get("PYTHONPATH"))))
    done = subprocess.run(
        pipeline.command("--set", "DatasetName=jumps", "--set", "TrainingRun=jumps"),
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    identifier = run_id(pipeline.runs / "latest")
    assert Outcome.of(pipeline, "jumps", identifier) == unbroken
    # A step's own time is measured, not read off the clock.
    seconds = [step["seconds"] for step in pipeline.summary(identifier)["steps"].values()]
    assert all(abs(value) < 3000 for value in seconds), seconds
    print(f"\nthe clock jumped a day every 3 s; every byte is the same, the steps took {sum(seconds):.0f} s")
