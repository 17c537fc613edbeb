"""Reads what a run left in S3 without trusting it: single objects, and a few small files of a tar.gz stream.

Nothing is unpacked to disk: members are read into memory by their base name, so their paths do not matter; links and
devices are skipped; the number of decompressed bytes is limited. Everything that looks like a credential or a signed
address is cut out, in any place: an artifacts folder is made to be shared.
"""

import re
import tarfile
import zlib
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import IO, Any, Final

from botocore.exceptions import ClientError

from params.files import MAX_READ_BYTES, BoundedGzip
from params.s3 import join_uri, split_uri
from pipeline_definition.errors import OperatorError

MAX_UNPACKED_BYTES: Final = 2**30
MAX_MEMBER_BYTES: Final = 64 * 2**20
MAX_SAMPLES: Final = 24
REMOVED: Final = "[removed]"
_SECRET_NAME: Final = (
    r"(?:secret_?access_?key|secret|(?:session|security|access|api|auth)_?token|password|passwd|api_?key)"
)
_NAMED: Final = re.compile(rf"(?i){_SECRET_NAME}$|^token$|^authorization$")
_PATTERNS: Final = (
    # Presigned S3 and CloudFront addresses, and shared access signatures.
    (
        re.compile(r"\?[^\s\"'<>]*(?:X-Amz-Signature|X-Amz-Credential|Signature|AWSAccessKeyId|sig)=[^\s\"'<>]*"),
        f"?{REMOVED}",
    ),
    # user:password@ in an address.
    (re.compile(r"://[^/\s:@\"']+:[^/\s@\"']+@"), f"://{REMOVED}@"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), REMOVED),
    (re.compile(r"(?i)(\bauthorization\"?\s*[=:]\s*).+"), rf"\1{REMOVED}"),
    (re.compile(rf"(?i)({_SECRET_NAME}[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+"), rf"\1{REMOVED}"),
)


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
    """Return regular files by base name, the first of each; OperatorError where damaged or above `max_bytes`."""
    contents: dict[str, bytes] = {}
    try:
        with BoundedGzip(fileobj=stream, mode="rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
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


def redacted(value: Any) -> Any:
    """Return a JSON value without credentials; the shape stays."""
    if isinstance(value, str):
        for pattern, replacement in _PATTERNS:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        secret = {key for key, item in value.items() if item and isinstance(item, str) and _NAMED.search(str(key))}
        return {key: REMOVED if key in secret else redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return value
