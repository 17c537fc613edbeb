"""A job's disk of a given size: a file system in memory, mounted over the host's folder.

Reads /proc/self/mounts; mounts and unmounts. Needs root and Linux.
"""

import subprocess
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")


def small_disk(folder: Path, size_mb: int) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], check=True)


def release_disks(folder: Path) -> None:
    """Take away every disk below a folder, with what is on it."""
    if not _MOUNTS.is_file():
        return
    places = [Path(line.split()[1]) for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    for place in places:
        if place.is_relative_to(folder):
            subprocess.run(["umount", "--lazy", str(place)], check=False)
