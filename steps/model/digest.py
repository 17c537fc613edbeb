"""The digest of a folder of models. Imports no torch: whoever only plans or compares starts without it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from steps.errors import StepError


def folder_digest(folder: Path) -> str:
    """Return a sha256 over the names and contents of all files below a folder."""
    if not folder.is_dir():
        raise StepError(f"{folder}: no such folder")
    digest = hashlib.sha256()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
