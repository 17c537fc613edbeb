"""/opt/ml as a real path for a program that runs as a process: its job's folder, in a mount namespace of its own.

Needs `unshare` and the right to make namespaces; elsewhere paths in the command line are rewritten, and others fail.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from params.layout import BASE_DIR

# Nobody but root makes /opt/ml: a new /opt in memory holds it, and what /opt has.
_SCRIPT = f"""set -e
if [ ! -d {BASE_DIR} ]; then
    mount -t tmpfs tmpfs /mnt
    for item in /opt/*; do
        if [ -d "$item" ]; then mkdir "/mnt/${{item##*/}}"; mount --rbind "$item" "/mnt/${{item##*/}}"; fi
    done
    mkdir /mnt/ml
    mount --move /mnt /opt
fi
mount --bind "$0" {BASE_DIR}
exec "$@"
"""


def in_base_dir(argv: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Return the command that runs a program to which a folder is /opt/ml, by a mount or by its words."""
    if possible():
        return (*_unshare(), "sh", "-c", _SCRIPT, str(folder), *argv)
    return tuple(word.replace(f"{BASE_DIR}/", f"{folder}/") for word in argv)


@functools.cache
def possible() -> bool:
    """Return whether this user may make mount namespaces, and mount in them."""
    if shutil.which("unshare") is None:
        return False
    command = [*_unshare(), "sh", "-c", _SCRIPT, "/tmp", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _unshare() -> tuple[str, ...]:
    return ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
