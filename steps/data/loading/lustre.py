"""Latents on FSx for Lustre: waits for files that it has not imported yet, and has it fetch them before anybody reads.

Reads <folder>/manifest.json, the names and sizes of the files that it lists, and a byte of each shard; writes nothing.
FSx imports what Encode wrote to S3 by itself, minutes later and file by file: a folder without a manifest, or with less
than the manifest names, is late before it is unfinished. It then knows a file's name and size, and fetches its content
when it is first read, each file by itself: the first epoch would go as fast as its readers ask. Here many files are
asked for at once, by a byte of each: Lustre fetches a file whole, and lets nobody read before it is there.

Source: https://docs.aws.amazon.com/fsx/latest/LustreGuide/autoimport-data-repo-dra.html
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from params.layout import LATENTS_FORMER_INDEX_FILE, LATENTS_INDEX_FILE, MANIFEST_FILE
from steps.container import Cluster
from steps.data.latents.latents_manifest import LatentsManifest
from steps.errors import StepError

POLL_S: Final = 2.0
SAY_EVERY_S: Final = 60.0
# A file system in the network answers in a millisecond, 92,000 times; and a reader waits for its file to be fetched.
READERS: Final = 64


def wait_for_files(folder: Path, limit_s: float) -> None:
    """Return when the folder holds every file that its manifest names, at its size; at once where `limit_s` is 0.

    A channel that is not there at all is left to its reader: a mount is a folder, however late its files are. Raises
    StepError that names the first missing file, and where to look, after `limit_s` seconds.
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
    index = LATENTS_FORMER_INDEX_FILE if LATENTS_FORMER_INDEX_FILE in names else LATENTS_INDEX_FILE
    missing = [name for name in (index, *sizes) if name not in names]
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


def warm_in_background(folder: Path, cluster: Cluster) -> threading.Thread:
    """Start to fetch this host's share of the shards, while training begins; a failure costs speed, not the job."""
    thread = threading.Thread(target=_warm, args=(folder, cluster), name="warming", daemon=True)
    thread.start()
    return thread


def warm(paths: Sequence[Path]) -> Iterator[int]:
    """Fetch files; yield, after each, how many are on the file system so far."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="warming") as readers:
        yield from accumulate(readers.map(_read_a_byte, paths))


def _warm(folder: Path, cluster: Cluster) -> None:
    try:
        manifest = LatentsManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        names = [shard.name for shard in manifest.shards][cluster.rank :: len(cluster.hosts)]
        said_s, began_s = time.monotonic(), time.monotonic()
        for fetched in warm([folder / name for name in names]):
            now_s = time.monotonic()
            if now_s - said_s >= SAY_EVERY_S or fetched == len(names):
                said_s = now_s
                print(f"warming: {fetched:,} of {len(names):,} shards fetched in {now_s - began_s:.0f} s", flush=True)
    except (OSError, ValueError) as error:
        print(f"warning: warming stopped, shards are fetched as they are read: {error}", flush=True)


def _read_a_byte(path: Path) -> int:
    try:
        with path.open("rb", buffering=0) as file:
            file.read(1)
    except OSError:
        # The loader says by name which shard it cannot read.
        return 0
    return 1
