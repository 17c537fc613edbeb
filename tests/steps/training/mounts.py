"""A file system of its own for one process: full, or read-only. Linux; what it mounts ends with the process."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

# linux/sched.h and linux/mount.h.
CLONE_NEWNS, CLONE_NEWUSER, MS_RDONLY = 0x00020000, 0x10000000, 1


def possible() -> bool:
    """Return whether this user may mount inside a namespace."""
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    if unshare is None or mount is None:
        return False
    command = [unshare, "--user", "--map-root-user", "--mount", mount, "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def mount_small(folder: Path, size_kib: int, read_only: bool) -> None:
    """Lay an empty file system of a size over a folder, for this process alone, which must have one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    flags, data = MS_RDONLY if read_only else 0, f"size={size_kib}k".encode()
    _checked(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, data))


def _checked(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
