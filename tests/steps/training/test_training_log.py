"""The training log is read by SageMaker's metric definitions, and goes on where it was."""

import re
from pathlib import Path

import pytest

from params.layout import metric_regex
from steps.training.training_log import TrainingLog, to_line

ENTRY = {"training_loss": 0.00012345678, "seen_samples": 12_800_000, "learning_rate": 1e-7, "images_per_s": 1234567.8}


@pytest.mark.parametrize("name", list(ENTRY))
def test_every_value_is_found_by_its_metric_definition(name: str) -> None:
    found = re.findall(metric_regex(name), to_line(ENTRY))
    assert len(found) == 1
    assert float(found[0]) == pytest.approx(ENTRY[name], rel=1e-5)


def test_a_resumed_log_goes_on_behind_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "training_log.jsonl"
    first = TrainingLog(path)
    first.append({"seen_samples": 8, "training_loss": 0.5})
    at_checkpoint = first.text
    first.append({"seen_samples": 16, "training_loss": 9.0})
    resumed = TrainingLog(path, at_checkpoint)
    resumed.append({"seen_samples": 16, "training_loss": 0.25})
    assert path.read_text() == resumed.text
    assert [entry["training_loss"] for entry in resumed.entries] == [0.5, 0.25]
    assert resumed.last("training_loss") == 0.25
    assert resumed.last("validation_loss") is None


def test_ranks_without_a_file_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(None)
    log.append({"seen_samples": 8})
    assert log.entries == [{"seen_samples": 8}]
    assert capsys.readouterr().out == ""
