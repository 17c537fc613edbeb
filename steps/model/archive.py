"""Unpacks a model archive without trusting it.

Reads model.tar.gz; writes its files into a folder. Refused with one line: an archive that is missing or damaged, that
holds anything but files and folders, leads out of the folder, or unpacks to more than it may.
"""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Final

from params.families import INDEX_FILE
from params.files import MAX_READ_BYTES, BoundedGzip
from steps.errors import StepError

MAX_UNPACKED_BYTES: Final = 64 * 2**30
MAX_MEMBERS: Final = 10_000


def unpack_model(archive: Path, folder: Path, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Replace `folder` by an archive's content. Raises StepError where it is hostile, damaged, too large, no model."""
    if not archive.is_file():
        raise StepError(f"{archive}: no model archive; a training job's output belongs there")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _extract(archive, folder, max_bytes)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StepError(f"{archive}: cannot be unpacked: {error}") from None
    if not (folder / INDEX_FILE).is_file():
        raise StepError(f"{archive}: holds no {INDEX_FILE}, so it is not a diffusers pipeline")


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    total_bytes = 0
    with BoundedGzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for count, member in enumerate(tar, start=1):
            if not (member.isreg() or member.isdir()):
                raise StepError(f"{archive}: refused: {member.name!r} is neither a file nor a folder")
            total_bytes += member.size
            if total_bytes > max_bytes or count > MAX_MEMBERS:
                raise StepError(f"{archive}: refused: more than {max_bytes} bytes or {MAX_MEMBERS} files unpacked")
            tar.extract(member, folder, filter="data")
        # What follows the last file: only at its end does gzip compare its checksum.
        while block := stream.read(MAX_READ_BYTES):
            total_bytes += len(block)
            if total_bytes > max_bytes:
                raise tarfile.ReadError("too much follows its last file")
