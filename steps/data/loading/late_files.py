"""Waits for files of the latents that the file system has not imported yet.

Reads <folder>/manifest.json and the names and sizes of the files that it lists; writes nothing. FSx for Lustre imports
what Encode wrote to S3 by itself, minutes later and file by file: a folder without a manifest, or with less than the
manifest names, is late before it is unfinished.

Source: https://docs.aws.amazon.com/fsx/latest/LustreGuide/autoimport-data-repo-dra.html
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from params.layout import LATENTS_INDEX_FILE, MANIFEST_FILE
from steps.data.latents.latents_manifest import LatentsManifest
from steps.errors import StepError

POLL_S: Final = 2.0
SAY_EVERY_S: Final = 60.0
# A file system in the network answers in a millisecond, 92,000 times.
READERS: Final = 32


def wait_for_files(folder: Path, limit_s: float) -> None:
    """Return when the folder holds every file that its manifest names, at its size; at once where `limit_s` is 0.

    A channel that is not there at all is left to whoever reads it: a mount is a folder, however late its files are.

    Raises StepError that names the first file which is missing, and where to look, after `limit_s` seconds.
    """
    began_s = time.monotonic()
    said_s: float | None = None
    while limit_s and folder.is_dir() and (late := late_files(folder)):
        now_s = time.monotonic()
        if now_s - began_s > limit_s:
            raise StepError(_unfinished(folder, late, limit_s))
        if said_s is None or now_s - said_s >= SAY_EVERY_S:
            said_s = now_s
            left_s = limit_s - (now_s - began_s)
            print(
                f"waiting {left_s:.0f} s more for the file system to import latents from S3: {_listed(folder, late)}",
                flush=True,
            )
        time.sleep(min(POLL_S, limit_s))
    if said_s is not None:
        print(f"the file system has every file of the latents, after {time.monotonic() - began_s:.0f} s", flush=True)


def late_files(folder: Path) -> list[str]:
    """Return what the folder lacks: its manifest, or files that the manifest names, or that have another size there."""
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        names = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        return [f"{MANIFEST_FILE} ({error.strerror})"]
    try:
        manifest = LatentsManifest.model_validate_json(content)
    except ValidationError:
        # Whoever opens it says what is wrong with it.
        return []
    sizes = {shard.name: shard.bytes for shard in manifest.shards}
    missing = [name for name in (LATENTS_INDEX_FILE, *sizes) if name not in names]
    if missing:
        return missing
    with ThreadPoolExecutor(READERS) as readers:
        present = readers.map(lambda name: _size(folder / name), sizes)
        pairs = zip(sizes.items(), present, strict=True)
        return [f"{name} ({size:,} of {wanted:,} bytes)" for (name, wanted), size in pairs if size != wanted]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _unfinished(folder: Path, late: list[str], limit_s: float) -> str:
    return (
        f"{_listed(folder, late)} after {limit_s:.0f} s: either the latents were never finished (then S3 has no "
        f"{MANIFEST_FILE} either: run Encode), or FSx for Lustre does not import them: see the state of its data "
        "repository association (aws fsx describe-data-repository-associations: Lifecycle AVAILABLE, AutoImportPolicy "
        "with NEW and CHANGED); latents_wait_s sets the limit"
    )


def _listed(folder: Path, late: list[str]) -> str:
    more = f" and {len(late) - 1:,} more" if len(late) > 1 else ""
    return f"{folder}: no {late[0]}{more}"
