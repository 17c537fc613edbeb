"""The model's own record in metrics.json."""

import json
from pathlib import Path

import pytest

from steps.errors import StepError
from steps.evaluation.models import model_record


def test_the_record_is_the_models_lineage(tmp_path: Path) -> None:
    lineage = {"code_digest": "c" * 64, "images_per_s": 12.5, "settings": {"seed": 0}}
    (tmp_path / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    assert model_record(tmp_path) == lineage


@pytest.mark.parametrize("lineage", [None, "{}", '{"images_per_s": null}'])
def test_what_the_registry_reads_is_always_there(tmp_path: Path, lineage: str | None) -> None:
    if lineage is not None:
        (tmp_path / "lineage.json").write_text(lineage, encoding="utf-8")
    assert model_record(tmp_path) == {"code_digest": "unknown", "images_per_s": "unknown"}


@pytest.mark.parametrize("damaged", ["{", "[]", ""])
def test_a_damaged_record_is_refused(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "lineage.json").write_text(damaged, encoding="utf-8")
    with pytest.raises(StepError, match=r"lineage\.json: damaged"):
        model_record(tmp_path)
