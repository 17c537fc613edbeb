"""Reads what a run left in S3 without trusting it: single objects, and a few small files of a tar.gz stream.

Nothing is unpacked to disk: members are read into memory by their base name, so their paths do not
matter; links and devices are skipped; the number of decompressed bytes is limited.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import IO, Any, Final

from botocore.exceptions import ClientError

from params.s3 import join_uri, split_uri
from pipeline_definition.errors import OperatorError

MAX_UNPACKED_BYTES: Final = 2**30
MAX_MEMBER_BYTES: Final = 64 * 2**20
# tarfile holds a whole extended header in memory; only one made to exhaust it is larger than this.
MAX_READ_BYTES: Final = 2**20
MAX_SAMPLES: Final = 24


def open_object(s3: Any, uri: str, max_bytes: int) -> Any:
    """Return the stream of an object's bytes; one that is missing or larger than `max_bytes` is refused."""
    bucket, key = split_uri(uri, OperatorError)
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        raise OperatorError(f"{uri}: {error.response['Error'].get('Message') or error}") from None
    if answer["ContentLength"] > max_bytes:
        raise OperatorError(f"{uri}: {answer['ContentLength']:,} bytes are more than the limit of {max_bytes:,}")
    return answer["Body"]


def picture_names(s3: Any, uri: str) -> list[str]:
    """Return the names of the first 24 PNG files directly under a prefix, in order."""
    bucket, prefix = split_uri(join_uri(uri, ""), OperatorError)
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    names = sorted(str(item["Key"]).removeprefix(prefix) for item in listed)
    return [name for name in names if name.endswith(".png") and "/" not in name and name[0] != "."][:MAX_SAMPLES]


def read_members(stream: IO[bytes], names: Collection[str], max_bytes: int = MAX_UNPACKED_BYTES) -> dict[str, bytes]:
    """Return the content of the regular files whose base name is among `names`; the first of a name wins.

    Reads no further than to the last of them. Raises OperatorError where the archive is damaged or unpacks to more
    than `max_bytes`.
    """
    contents: dict[str, bytes] = {}
    try:
        with _BoundedGzip(fileobj=stream, mode="rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for member in archive:
                if member.offset_data + member.size > max_bytes:
                    raise OperatorError(f"archive refused: it unpacks to more than {max_bytes:,} bytes")
                name = PurePosixPath(member.name).name
                if name in names and name not in contents and member.isreg():
                    contents[name] = _content(archive, member)
                if len(contents) == len(names):
                    break
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise OperatorError(f"archive cannot be read: {error}") from None
    return contents


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_MEMBER_BYTES:
        raise OperatorError(f"{member.name}: {member.size:,} bytes are more than the limit of {MAX_MEMBER_BYTES:,}")
    file = archive.extractfile(member)
    return b"".join(iter(lambda: file.read(MAX_READ_BYTES // 16), b"")) if file is not None else b""


class _BoundedGzip(gzip.GzipFile):
    """Gzip stream that refuses to return more than MAX_READ_BYTES at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)
