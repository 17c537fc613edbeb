"""What the metrics were computed with: library versions, the device, digests, and the model's own record."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

from params.layout import LINEAGE_FILE, MODEL_CODE_DIGEST, MODEL_IMAGES_PER_S, UNKNOWN
from steps.model.json_object import read_object

LIBRARIES: Final = ("torch", "torchmetrics", "diffusers", "transformers", "numpy", "scipy", "pillow")


def versions() -> dict[str, str]:
    """Return the version of each library that a metric depends on, of Python, and the device's name."""
    installed = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {**installed, "python": platform.python_version(), "device": device}


def model_record(folder: Path) -> dict[str, Any]:
    """Return the lineage that training left in the model's folder: settings, code, data, throughput.

    What the registry reads is always present, `unknown` if the model came without it. Raises StepError if the file is
    not a JSON object.
    """
    path = folder / LINEAGE_FILE
    record = read_object(path) if path.is_file() else {}
    known = {name: value for name, value in record.items() if value is not None}
    return {MODEL_CODE_DIGEST: UNKNOWN, MODEL_IMAGES_PER_S: UNKNOWN, **known}
