"""A model card says what is known of a model, and says of the rest that it is unknown."""

import json
from pathlib import Path
from typing import Any

import yaml

from pipeline_definition.models.model_card import write_card
from pipeline_definition.models.package_record import PackageFiles, PackageRecord
from pipeline_definition.models.registry import PackageGroup
from tests.pipeline_definition.packages import described, files_of, metric, target_of


def card(folder: Path, record: PackageRecord | None, ledger: dict[str, Any]) -> tuple[dict[str, Any], str]:
    lineage = {"seen_samples": 512, "settings": {"prediction_type": "v_prediction", "initial_weights": "<b>scratch"}}
    (folder / "lineage.json").write_text(json.dumps(lineage))
    write_card(folder, record, ledger)
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_model_of_no_registry_has_a_card_that_says_what_is_unknown(tmp_path: Path) -> None:
    front, text = card(tmp_path, None, {})
    assert (front["library_name"], front["license"]) == ("diffusers", "unknown")
    assert "samples seen: **512**" in text
    assert "prediction: **v_prediction**" in text
    assert "energy: **unknown**" in text
    assert "<b>" not in text


def test_a_registered_model_has_its_metrics_with_intervals_its_data_and_its_cost(tmp_path: Path) -> None:
    files = files_of(3, {"fid": metric(12.0, 0.5)}, {})
    target = target_of(package := described(3), files=files)
    record = PackageFiles(target).record(PackageGroup(target, "sd-pipeline").show(package["ModelPackageArn"]))
    front, text = card(tmp_path, record, {"rows": 9, "kept": 7, "filtered": {"too_small": 2}})
    result = front["model-index"][0]["results"][0]
    assert result["metrics"] == [{"type": "fid", "value": 12.0}]
    assert result["dataset"]["name"] == "laion"
    assert "fid: **12 (11.5 to 12.5)**" in text
    assert "hosts: **2 x ml.p4d.24xlarge**" in text
    assert "hours: **2.00**" in text
    assert 'left out by filters: **{"too_small": 2}**' in text
    assert "s3://" not in text
