"""moto's S3 objects with their bytes in files: `<state>/s3/<bucket>/<key>`.

moto keeps every object in memory and loses it with the process. Here an object is a file that is written beside and
renamed, so that it is whole or absent, outlives a kill, and costs no memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, ClassVar

from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeKey

from pipeline_definition.local.journal import Journal

_DEFAULT_TYPE = "binary/octet-stream"


class SlowDownError(S3ClientError):
    """The object was replaced while it was read: clients try again by themselves (503)."""

    code = "SlowDown"


def object_path(root: Path, bucket: str, key: str) -> Path:
    """Return where an object lies.

    A name may be an object and a folder at once in S3 (`a` and `a/b`): then the object's file ends with `%`.
    """
    path = root / bucket / Path(*[_encode(segment) for segment in key.split("/")])
    beside = path.with_name(path.name + "%")
    return beside if path.is_dir() or beside.exists() else path


def key_of(bucket_dir: Path, path: Path) -> str:
    """Return the key whose object lies at a path."""
    return "/".join(_decode(segment) for segment in path.relative_to(bucket_dir).parts)


def _encode(segment: str) -> str:
    if segment in ("", ".", ".."):
        return f"%{len(segment)}"
    return segment.replace("%", "%25").replace("\0", "%00")


def _decode(segment: str) -> str:
    segment = segment.removesuffix("%")
    if segment in ("%0", "%1", "%2"):
        return "." * int(segment[1])
    return segment.replace("%00", "\0").replace("%25", "%")


_MotoKey: Any = FakeKey  # its properties are called by name below


class StoredKey(FakeKey):
    """An object whose bytes are a file. Parts of an upload, which have no bucket, stay as moto keeps them."""

    root: ClassVar[Path]
    """Folder of the buckets; set once before the server starts."""

    index: ClassVar[Journal]
    """What files cannot hold: ETags and metadata."""

    in_file = False
    """Whether the bytes are in a file: not so for the former versions in a versioned bucket."""
    _inode: int = 0

    def __deepcopy__(self, _memo: object) -> StoredKey:
        """Copy what is known of the object, for a listing of versions: moto's own copy would write the file anew."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    @property
    def value(self) -> bytes:
        """The object's bytes.

        Raises SlowDownError where another object has taken the file.
        """
        if not self.in_file:
            return bytes(_MotoKey.value.fget(self))
        with self._open() as file:
            return bytes(file.read())

    @value.setter
    def value(self, new_value: bytes | Path) -> None:
        """Store bytes, or a file that does not change again; it may be the object's own already."""
        if self.bucket_name is None:
            _MotoKey.value.fset(self, new_value)
            return
        self.in_file = True
        if new_value == self.path:
            self._identify(self.path)
            return
        path = _make_room(self.path, self.root / self.bucket_name)
        beside = self.root / ".incoming" / uuid.uuid4().hex
        beside.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(new_value, Path):
            self._etag = self._etag or _md5(new_value).hexdigest()
            beside.write_bytes(new_value)
        else:
            try:
                beside.hardlink_to(new_value)
            except OSError:  # another disk
                shutil.copyfile(new_value, beside)
        self._identify(beside)
        beside.replace(path)

    @property
    def etag(self) -> str:
        """The quoted MD5 of the object, read in blocks."""
        if self._etag is None and self.in_file:
            with self._open() as file:
                self._etag = hashlib.file_digest(file, _md5).hexdigest()
        return str(_MotoKey.etag.fget(self))

    @property
    def path(self) -> Path:
        """The object's file."""
        return object_path(self.root, str(self.bucket_name), self.name)

    def set_metadata(self, metadata: Any, replace: bool = False) -> None:
        """Set user metadata and content type, and note them with the ETag."""
        super().set_metadata(metadata, replace)
        if not self.in_file:
            return
        status = self.path.stat()
        entry: dict[str, Any] = {
            "bucket": self.bucket_name,
            "key": self.name,
            "stamp": [status.st_size, status.st_mtime_ns],
            "etag": self.etag.strip('"'),
        }
        own = {name: str(value) for name, value in self.metadata.items()}
        if own != {"content-type": _DEFAULT_TYPE}:
            entry["metadata"] = own
        self.index.append(entry)

    def detach(self) -> None:
        """Take the bytes into memory: a former version of a versioned object, whose file goes to the next one."""
        if self.in_file:
            value = self.value
            self.in_file = False
            _MotoKey.value.fset(self, value)

    def dispose(self, garbage: bool = False) -> None:
        """Let go of memory; the file belongs to the store."""
        with contextlib.suppress(AttributeError):
            self._value_buffer.close()
        self.disposed = True

    def _open(self) -> Any:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            raise SlowDownError("The object was replaced while it was read") from None
        if os.fstat(file.fileno()).st_ino != self._inode:
            file.close()
            raise SlowDownError("The object was replaced while it was read")
        return file

    def _identify(self, path: Path) -> None:
        status = path.stat()
        self._inode, self.contentsize = status.st_ino, status.st_size


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def _make_room(path: Path, bucket_dir: Path) -> Path:
    """Make the object's folder; an object that stands where a folder is needed moves to its name with `%`."""
    for parent in reversed(path.relative_to(bucket_dir).parents):
        folder = bucket_dir / parent
        if folder.is_file():
            beside = folder.with_name(f".{folder.name}.moving")
            folder.rename(beside)
            folder.mkdir()
            beside.rename(folder.with_name(folder.name + "%"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
