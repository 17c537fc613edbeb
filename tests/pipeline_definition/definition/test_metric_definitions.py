"""What a training really prints is what the definition's own metric definitions find."""

import re
from pathlib import Path

import pytest

from tests.pipeline_definition.definitions import all_steps, definition_of
from tests.steps.training.jobs import Job
from tests.steps.training.tiny_model import write_latents, write_pretrained

# What is said of checkpoints in S3 is on lines of its own, where there is an S3.
OF_S3 = {"checkpoint_age_s", "checkpoint_lag_s"}


def test_a_trainings_lines_are_parsed_by_the_definitions_own_patterns(tmp_path: Path) -> None:
    pretrained = write_pretrained(tmp_path / "pretrained")
    settings: dict[str, object] = {"training_samples": 32, "instance_hour_usd": 36.0}
    job = Job(tmp_path / "job", settings).write(pretrained, write_latents(tmp_path / "latents", pretrained))
    output = job.run().output
    specification = all_steps(definition_of("local"))["Train"]["Arguments"]["AlgorithmSpecification"]
    patterns = {item["Name"]: item["Regex"] for item in specification["MetricDefinitions"] if item["Name"] not in OF_S3}
    logged = {name: [entry[name] for entry in job.log() if name in entry] for name in patterns}
    for name, pattern in patterns.items():
        found = [float(text) for text in re.findall(pattern, output, re.MULTILINE)]
        assert found[: len(logged[name])] == pytest.approx(logged[name], rel=1e-4), name
        assert found, name
