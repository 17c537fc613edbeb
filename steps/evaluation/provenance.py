"""What the metrics were computed with: library versions, the device, digests, and the model's own record."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

from params.layout import LINEAGE_FILE, MODEL_CODE_DIGEST, MODEL_IMAGES_PER_S, UNKNOWN
from steps.errors import StepError

LIBRARIES: Final = ("torch", "torchmetrics", "diffusers", "transformers", "numpy", "scipy", "pillow")


def versions() -> dict[str, str]:
    """Return the version of each library that a metric depends on, of Python, and the device's name."""
    found = {name: _version(name) for name in LIBRARIES}
    found["python"] = platform.python_version()
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {name: text for name, text in found.items() if text}


def model_record(folder: Path) -> dict[str, Any]:
    """Return the lineage that training left in the model's folder: settings, code, data, throughput.

    What the registry reads is always there, `unknown` where a model came without it. Raises StepError where the file is
    no JSON object.
    """
    path = folder / LINEAGE_FILE
    record: Any = {}
    if path.is_file():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise StepError(f"{LINEAGE_FILE} of the model is no JSON object: the archive is damaged")
    known = {name: value for name, value in record.items() if value is not None}
    return {MODEL_CODE_DIGEST: UNKNOWN, MODEL_IMAGES_PER_S: UNKNOWN, **known}


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
