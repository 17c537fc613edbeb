"""What the metrics were computed with: library versions, the device, and digests of everything that was read."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import torch

LIBRARIES: Final = ("torch", "torchmetrics", "diffusers", "transformers", "numpy", "scipy", "pillow", "torch-fidelity")


def versions() -> dict[str, str]:
    """Return the version of each library that a metric depends on, of Python, and the device's name."""
    found = {name: _version(name) for name in LIBRARIES}
    found["python"] = platform.python_version()
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {name: text for name, text in found.items() if text}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
