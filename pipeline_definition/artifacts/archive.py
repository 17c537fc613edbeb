"""Takes a few named small files out of a tar.gz stream without trusting it.

Nothing is unpacked to disk: members are read into memory by their base name, so a path that leads elsewhere leads
nowhere; links and devices are passed over; how much is decompressed is bounded.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import IO, Final

from pipeline_definition.artifacts.folder import ArtifactsError

MAX_UNPACKED_BYTES: Final = 2**30
MAX_MEMBER_BYTES: Final = 64 * 2**20
# tarfile holds a whole extended header in memory; only one made to exhaust it is larger than this.
MAX_READ_BYTES: Final = 2**20


def read_members(stream: IO[bytes], names: Collection[str], max_bytes: int = MAX_UNPACKED_BYTES) -> dict[str, bytes]:
    """Return the content of the regular files whose base name is among `names`; the first of a name wins.

    Reads no further than to the last of them. Raises ArtifactsError where the archive is damaged or unpacks to more
    than `max_bytes`.
    """
    found: dict[str, bytes] = {}
    try:
        with (
            _BoundedGzip(fileobj=stream, mode="rb") as unpacked,
            tarfile.open(fileobj=unpacked, mode="r:") as archive,
        ):
            for member in archive:
                if member.offset_data + member.size > max_bytes:
                    raise ArtifactsError(f"archive refused: it unpacks to more than {max_bytes:,} bytes")
                name = PurePosixPath(member.name).name
                if name in names and name not in found and member.isreg():
                    found[name] = _content(archive, member)
                if len(found) == len(names):
                    break
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ArtifactsError(f"archive cannot be read: {error}") from None
    return found


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_MEMBER_BYTES:
        raise ArtifactsError(f"{member.name}: {member.size:,} bytes are more than the {MAX_MEMBER_BYTES:,} kept here")
    file = archive.extractfile(member)
    return b"".join(iter(lambda: file.read(MAX_READ_BYTES // 16), b"")) if file is not None else b""


class _BoundedGzip(gzip.GzipFile):
    """Gzip stream that refuses to hand over much at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)
