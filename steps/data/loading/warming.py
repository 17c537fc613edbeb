"""Has FSx for Lustre fetch the latents from its bucket before anybody waits for them.

A file system that is linked to a bucket knows a file's name and size at once, and fetches its content when it is first
read, each file by itself: the first epoch would go as fast as its readers ask. Here many files are asked for at once.
Reads <folder>/manifest.json and one byte of each shard; writes nothing.

Source: https://docs.aws.amazon.com/fsx/latest/LustreGuide/preload-file-contents-hsm-dra.html
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from params.layout import MANIFEST_FILE
from steps.container import Cluster
from steps.data.latents.latents_manifest import LatentsManifest

# The guide: batches of 1,000 to 5,000 files, and the next when the one before is done.
BATCH_FILES: Final = 1000
# A reader waits for its file; these ask for so many at once.
READERS: Final = 64
POLL_S: Final = 5.0
SAY_EVERY_S: Final = 60.0
# What `lfs hsm_action` says of a file with which nothing is going on.
AT_REST: Final = "NOOP"


def warm_in_background(folder: Path, cluster: Cluster) -> threading.Thread:
    """Start to fetch this host's share of the shards, while training begins; a failure costs speed, not the job."""
    thread = threading.Thread(target=_warm, args=(folder, cluster), name="warming", daemon=True)
    thread.start()
    return thread


def warm(paths: Sequence[Path], poll_s: float = POLL_S) -> Iterator[int]:
    """Fetch files, batch by batch; yield how many are on the file system so far.

    By `lfs hsm_restore` where it is installed and may be used (the mount must be writable), else by reading a byte of
    each: Lustre restores a file whole, and lets nobody read before it is there.
    """
    lfs = shutil.which("lfs")
    fetched = 0
    with ThreadPoolExecutor(READERS, thread_name_prefix="warming") as readers:
        for start in range(0, len(paths), BATCH_FILES):
            batch = paths[start : start + BATCH_FILES]
            if lfs and not _restore(lfs, batch, poll_s):
                lfs = None
            fetched += sum(readers.map(_read_a_byte, batch))
            yield fetched


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


def _restore(lfs: str, batch: Sequence[Path], poll_s: float) -> bool:
    """Ask for a batch and wait until it is there; return False where that is not allowed."""
    if subprocess.run([lfs, "hsm_restore", *map(str, batch)], capture_output=True, check=False).returncode:
        return False
    while True:
        done = subprocess.run([lfs, "hsm_action", *map(str, batch)], capture_output=True, text=True, check=False)
        if done.returncode:
            return False
        if all(AT_REST in line for line in done.stdout.splitlines()):
            return True
        time.sleep(poll_s)


def _read_a_byte(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        # The loader says by name which shard it cannot read.
        return False
    try:
        os.pread(file, 1, 0)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
