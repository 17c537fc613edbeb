"""The model card of an exported folder: README.md in the Hub's format, from the model's lineage and its package.

Reads <folder>/lineage.json, and the record of a model package where there is one; writes <folder>/README.md. What
nobody recorded stands there as "unknown".
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from params.files import write_text
from params.layout import LINEAGE_FILE, UNKNOWN
from pipeline_definition.models.package_record import PackageRecord, hosts_text, metric_text, plain_text
from pipeline_definition.pages.document import Document, Fact, Section
from pipeline_definition.pages.markdown import to_markdown

CARD_FILE: Final = "README.md"
SECONDS_PER_HOUR: Final = 3600
USE: Final = (
    "Pictures from English prompts of the kind that it was trained on, after the people who publish it have looked at "
    "what it draws. Not for pictures that are taken for photographs of events or people."
)


def write_card(folder: Path, record: PackageRecord | None, ledger: Mapping[str, Any]) -> None:
    """Write the card of an exported folder, without any address; a model in no registry has no `record`."""
    file = folder / LINEAGE_FILE
    lineage = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    front: dict[str, Any] = {
        "license": UNKNOWN,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["stable-diffusion", "text-to-image"],
    }
    metrics = [{"type": key, "value": entry["value"]} for key, entry in (record.entries if record else {}).items()]
    if record and metrics:
        data = record.package.metadata.get("dataset", UNKNOWN)
        result = {"task": {"type": "text-to-image"}, "dataset": {"name": data, "type": data}, "metrics": metrics}
        front["model-index"] = [{"name": folder.name, "results": [result]}]
    body = to_markdown(Document((), folder.name, USE, tuple(_sections(lineage, record, ledger))), CARD_FILE)
    yaml_front = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    write_text(folder / CARD_FILE, f"---\n{yaml_front}---\n\n{body}")


def _sections(lineage: Mapping[str, Any], record: PackageRecord | None, ledger: Mapping[str, Any]) -> Iterator[Section]:
    settings, lora = lineage.get("settings") or {}, lineage.get("lora") or {}
    manifest = record.data_manifest if record else {}
    metadata = record.package.metadata if record else {}
    usd, seconds = record.training_usd if record else None, metadata.get("billable_seconds")
    metrics = {name: metric_text(entry) for name, entry in (record.entries if record else {}).items()}
    told: dict[str, dict[str, Any]] = {
        "Training": {
            "samples seen": lineage.get("seen_samples"),
            "prediction": settings.get("prediction_type"),
            "starting weights": lineage.get("base_model") or settings.get("initial_weights"),
            **{f"LoRA's {name.replace('_', ' ')}": value for name, value in lora.items()},
            "final validation loss": lineage.get("validation_loss"),
            "code digest": lineage.get("code_digest"),
        },
        "Data": {
            "data set": metadata.get("dataset"),
            "pictures": manifest.get("counts"),
            "resolution, px": manifest.get("resolution_px"),
            "latents manifest": lineage.get("latents_manifest_digest"),
            "rows of the table": ledger.get("rows"),
            "stored": ledger.get("kept"),
            "left out by filters": ledger.get("filtered"),
            "licences of the pictures": None,
        },
        "Metrics, with 95 % intervals": metrics or {"metrics": None},
        "Quality gate": {key: text for key, text in metadata.items() if key.startswith("gate_")} or {"gate": None},
        "Cost and energy of Train": {
            "hosts": hosts_text(record.package) if record else None,
            "hours": f"{float(seconds) / SECONDS_PER_HOUR:,.2f}" if seconds else None,
            "dollars, on demand": None if usd is None else f"{usd:,.2f}",
            "energy": None,
        },
    }
    for title, facts in told.items():
        shown = {label: UNKNOWN if value in (None, "") else plain_text(value) for label, value in facts.items()}
        yield Section(title, title, facts=tuple(Fact(label, value) for label, value in shown.items()))
