"""The blocklist: pictures and hosts that must never get into the data.

Reads a text file with one entry a line, `#` begins a comment:

    host: pictures.example          this host and all below it, also behind a redirect
    sha256: 9f86d081884c7d65...     of a picture's bytes as they come from the web
    phash: c3d4a0b1f29e6587         perceptual hash (steps.data.pictures.perceptual_hash)
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import fsspec
import numpy as np
import numpy.typing as npt

from steps.errors import StepError

_ENTRY = re.compile(
    r"host:\s*(?P<host>[^\s/]+)|sha256:\s*(?P<sha256>[0-9a-fA-F]{64})|phash:\s*(?P<phash>[0-9a-fA-F]{16})"
)


@dataclass(frozen=True, eq=False)
class Blocklist:
    """What is left out, whoever asks for it."""

    hosts: frozenset[str] = frozenset()
    """In lower case."""
    sha256: frozenset[bytes] = frozenset()
    hashes: npt.NDArray[np.uint64] | None = None
    """Perceptual hashes; None where there are none."""
    max_distance: int = 0
    """A picture is blocked when its perceptual hash differs in at most so many bits from one of them."""
    digest: str = ""
    """sha256 of the file; empty without one."""

    def has(self, body: bytes) -> bool:
        """Return whether a picture's bytes are in the list."""
        return bool(self.sha256) and hashlib.sha256(body).digest() in self.sha256

    def has_look(self, look: int | None) -> bool:
        if self.hashes is None or look is None:
            return False
        return bool((np.bitwise_count(self.hashes ^ np.uint64(look)) <= self.max_distance).any())

    def blocked(self, sha256: Sequence[str], looks: Sequence[int | None]) -> npt.NDArray[np.bool_]:
        """Return which of some stored pictures are in the list, by the sha256 of what came and by their looks."""
        if not self.sha256 and self.hashes is None:
            return np.zeros(len(sha256), np.bool_)
        pairs = zip(sha256, looks, strict=True)
        return np.array([bytes.fromhex(one) in self.sha256 or self.has_look(look) for one, look in pairs], np.bool_)

    def has_host(self, url: str) -> bool:
        """Return whether an address is of a host in the list, or of one below it."""
        try:
            host = (urlsplit(url).hostname or "").strip(".").lower()
        except ValueError:
            return False
        return any(host == one or host.endswith(f".{one}") for one in self.hosts)


def read_blocklist(uri: str, max_distance: int = 0) -> Blocklist:
    """Return the list at an address; none at an empty one. Raises StepError that names the line which is no entry."""
    if not uri:
        return Blocklist()
    try:
        with fsspec.open(uri, "rb") as stream:
            content = stream.read()
    except (OSError, ValueError) as error:
        raise StepError(f"blocklist: {uri} cannot be read: {error}") from None
    entries: dict[str, set[str]] = {"host": set(), "sha256": set(), "phash": set()}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        entry = _ENTRY.fullmatch(text)
        if entry is None or entry.lastgroup is None:
            raise StepError(f"blocklist: {uri} line {number}: {text[:80]!r} is not host:, sha256: or phash:")
        entries[entry.lastgroup].add(entry[entry.lastgroup].lower())
    hashes = np.array(sorted(int(text, 16) for text in entries["phash"]), np.uint64)
    return Blocklist(
        hosts=frozenset(host.strip(".") for host in entries["host"]),
        sha256=frozenset(map(bytes.fromhex, entries["sha256"])),
        hashes=hashes if len(hashes) else None,
        max_distance=max_distance,
        digest=hashlib.sha256(content).hexdigest(),
    )
