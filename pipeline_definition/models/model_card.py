"""The model card of an exported folder: README.md in the Hub's format, from the model's lineage and its package.

Reads model_card.md, <folder>/lineage.json, and the record of a model package where there is one; writes
<folder>/README.md. What nobody recorded stands there as "unknown".
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from jinja2 import Environment, Undefined

from params.files import write_text
from params.layout import LINEAGE_FILE, UNKNOWN
from pipeline_definition.models.package_record import PackageRecord, hosts_text, metric_text, plain_text
from pipeline_definition.pages.markdown import plain

CARD_FILE: Final = "README.md"
TEMPLATE: Final = Path(__file__).with_suffix(".md")


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
    yaml_front = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    cards = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    cards.filters |= {"plain": plain, "told": _told}
    body = cards.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=folder.name,
        lineage=lineage,
        settings=lineage.get("settings") or {},
        lora=lineage.get("lora") or {},
        ledger=ledger,
        manifest=record.data_manifest if record else {},
        metadata=record.package.metadata if record else {},
        metrics={name: metric_text(entry) for name, entry in record.entries.items()} if record else {},
        hosts=hosts_text(record.package) if record else None,
        usd=record.training_usd if record else None,
    )
    write_text(folder / CARD_FILE, f"---\n{yaml_front}---\n\n{body}")


def _told(value: Any) -> str:
    is_known = value not in (None, "") and not isinstance(value, Undefined)
    return plain(plain_text(value)) if is_known else UNKNOWN
