"""What a run leaves on the disk, down to the members of its archives: searched for what must not be there."""

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# A presigned address is worth as much as the credentials that made it, for hours.
PRESIGNED = re.compile(rb"X-Amz-(Signature|Credential|Security-Token)=")
# Protocols 2 to 5 begin so, and every pickle ends with STOP.
PICKLE = re.compile(rb"\x80[\x02-\x05]")


def remains(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file, and of every file inside of an archive."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield from _opened(str(path), path.read_bytes())


def _opened(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, content
    if content.startswith(b"\x1f\x8b"):
        yield from _opened(f"{name} unpacked", gzip.decompress(content))
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                yield from _opened(f"{name}: {member.name}", file.read() if file else b"")
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.namelist():
                yield from _opened(f"{name}: {entry}", archive.read(entry))


def search(contents: Iterable[tuple[str, bytes]], secrets: re.Pattern[bytes]) -> dict[str, Any]:
    """Return what was found, by name, and how many contents were searched; one is in memory at a time."""
    found: dict[str, Any] = {"secrets": [], "pickles": [], "searched": 0}
    for name, content in contents:
        found["searched"] += 1
        if secret := secrets.search(content):
            found["secrets"].append((name, secret[0]))
        if is_pickle(content):
            found["pickles"].append(name)
    return found


def is_pickle(content: bytes) -> bool:
    """Return whether a content begins and ends as a pickle does; torch.save's zip holds one as data.pkl."""
    return PICKLE.match(content) is not None and content.endswith(b".")
