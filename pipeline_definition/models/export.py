"""Exports a model by `python -m steps export` in a process of its own: this one has no torch.

Reads a model archive on this machine or in S3, or a folder; the program writes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from params.files import import_path
from params.layout import ENTRY_POINT, MODEL_ARCHIVE
from pipeline_definition.artifacts.archive import open_object
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

ROOT: Final = Path(__file__).resolve().parents[2]
MAX_ARCHIVE_BYTES: Final = 64 * 2**30


def export_model(
    target: Callable[[], Target], address: str, out: Path, single_file: Path | None, half: bool, check: bool
) -> None:
    """Export the model at a path or an s3:// address of an archive; the program's progress goes to the terminal.

    Raises OperatorError with the program's own reason.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.download.") as folder:
        model = Path(address)
        if address.startswith("s3://"):
            model = Path(folder) / MODEL_ARCHIVE
            _download(target(), address, model)
        flags = ["--model", str(model.resolve()), "--out", str(out.resolve())]
        flags += ["--half", str(half).lower(), "--check", str(check).lower()]
        flags += ["--single-file", str(single_file.resolve())] if single_file else []
        command = [sys.executable, "-P", *ENTRY_POINT[1:], "export", *flags]
        done = subprocess.run(command, env={**os.environ, **import_path(ROOT)}, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise OperatorError(last[0].removeprefix("error: "))


def _download(target: Target, address: str, file: Path) -> None:
    if not address.endswith(".tar.gz"):
        raise OperatorError(f"{address}: not a {MODEL_ARCHIVE}; copy a folder in S3 to this machine and name the copy")
    with file.open("wb") as local:
        shutil.copyfileobj(open_object(target.client("s3"), address, MAX_ARCHIVE_BYTES), local)
