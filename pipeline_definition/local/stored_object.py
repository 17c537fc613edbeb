"""moto's S3 objects with their bytes in files, read and written in blocks.

moto keeps every object in memory and loses it with the process. Here the newest version of an object is the file
`<state>/s3/<bucket>/<key>`, which is replaced as a whole; former versions are files in `<state>/s3/.versions`. Parts of
an upload, and objects that have been replaced while somebody reads them, are files in `<state>/s3/.incoming`.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar, Self

from moto.s3.models import FakeKey, FakeMultipart, MultipartChecksumBuilder

from pipeline_definition.local.journal import Journal

INCOMING, VERSIONS = ".incoming", ".versions"
UNVERSIONED = "null"
_BLOCK_BYTES = 1 << 20
_md5 = functools.partial(hashlib.md5, usedforsecurity=False)
_NAME_BYTES = 254  # a file name has at most 255, of which `%` may be one
_CHUNK = 60  # characters, of up to four bytes each


def object_path(root: Path, bucket: str, key: str) -> Path:
    """Return where an object lies: at `a%` where the name `a` is both an object and a folder."""
    path = root / bucket / Path(*[name for segment in key.split("/") for name in _encode(segment)])
    beside = path.with_name(path.name + "%")
    return beside if path.is_dir() or beside.exists() else path


def version_path(root: Path, bucket: str, key: str, version: str) -> Path:
    return root / VERSIONS / uuid.uuid5(uuid.NAMESPACE_URL, f"s3://{bucket}/{key}?versionId={version}").hex


def key_of(bucket_dir: Path, path: Path) -> str:
    joined = "/".join(path.relative_to(bucket_dir).parts).replace("/%+", "")
    return "/".join(_decode(segment) for segment in joined.split("/"))


def _encode(segment: str) -> list[str]:
    if segment in ("", ".", ".."):
        return [f"%{len(segment)}"]
    name = segment.replace("%", "%25").replace("\0", "%00")
    if len(name.encode()) <= _NAME_BYTES:
        return [name]
    chunks = [name[start : start + _CHUNK] for start in range(0, len(name), _CHUNK)]
    return [chunks[0], *(f"%+{chunk}" for chunk in chunks[1:])]


def _decode(segment: str) -> str:
    segment = segment.removesuffix("%")
    if segment in ("%0", "%1", "%2"):
        return "." * int(segment[1])
    return segment.replace("%00", "\0").replace("%25", "%")


class StoredBytes:
    """Some of an object's bytes, read from its file in blocks as they are sent."""

    def __init__(self, key: "StoredKey", start: int, size: int) -> None:
        self._key, self._start, self._size = key, start, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> "StoredBytes":
        start, stop, _ = part.indices(self._size)
        return StoredBytes(self._key, self._start + start, max(0, stop - start))

    def __iter__(self) -> Iterator[bytes]:
        """Yield block after block; another object may take the place of this one meanwhile."""
        with self._key.open() as file:
            file.seek(self._start)
            left = self._size
            while block := file.read(min(_BLOCK_BYTES, left)):
                yield block
                left -= len(block)

    def __bytes__(self) -> bytes:
        return b"".join(self)

    def decode(self, encoding: str) -> str:
        """Return it as text: S3 Select, and templates of CloudFormation."""
        return bytes(self).decode(encoding)


class StoredKey(FakeKey):
    """A version of an object, or a part of an upload: then it has no bucket."""

    root: ClassVar[Path]
    """Folder of the buckets; set once before the server starts."""
    index: ClassVar[Journal]
    """What files cannot hold: ETags, metadata, versions."""
    changing: ClassVar[threading.RLock] = threading.RLock()
    """Held while a file takes or leaves an object's place."""

    is_kept = True
    """Whether the file outlives this object."""
    _aside: Path | None = None

    def __deepcopy__(self, _memo: object) -> Self:
        """Return itself: moto copies all keys of a bucket to list its versions, and changes nothing of them."""
        return self

    def __del__(self) -> None:
        """Remove a file that nobody can ask for any more."""
        if not self.is_kept:
            self.path.unlink(missing_ok=True)

    @property  # type: ignore[override]
    def value(self) -> StoredBytes | bytes:
        """The object's bytes, as they are now. moto joins the values of parts in memory: they have none."""
        return StoredBytes(self, 0, self.contentsize) if self.bucket_name else b""

    @value.setter
    def value(self, new_value: Path | Iterable[bytes] | bytes) -> None:
        """Take a staged file, or the object's own; the bytes of a part are staged here."""
        if self.bucket_name is None:
            self.is_kept = False
            with staged(self.root, new_value) as file:
                self._aside = file.rename(file.with_suffix(".part"))
        elif isinstance(new_value, Path):
            if new_value.parent.name == INCOMING:
                new_value.replace(make_room(self.root, self.bucket_name, self.name))
            elif new_value.parent.name == VERSIONS:
                self._aside = new_value
        self.contentsize = self.path.stat().st_size

    @property
    def path(self) -> Path:
        return self._aside or object_path(self.root, str(self.bucket_name), self.name)

    def open(self) -> BufferedReader:
        """Open the file, wherever it is now."""
        with self.changing:
            return self.path.open("rb")

    @property
    def etag(self) -> str:
        """The quoted MD5 of the object."""
        if self._etag is None:
            with self.open() as file:
                self._etag = hashlib.file_digest(file, _md5).hexdigest()
        return f'"{self._etag}"'

    def set_metadata(self, metadata: Any, replace: bool = False) -> None:
        super().set_metadata(metadata, replace)
        _ = self.etag  # from now on it is known
        note(str(self.bucket_name), self)

    def step_aside(self, is_kept: bool) -> None:
        """Leave the object's place; whoever holds this version goes on reading it."""
        if self._aside:
            return
        beside = self.root / INCOMING / uuid.uuid4().hex
        if is_kept:
            note(str(self.bucket_name), self)
            beside = version_path(self.root, str(self.bucket_name), self.name, self.version_id)
        beside.parent.mkdir(exist_ok=True)
        link(self.path, beside)
        self._aside, self.is_kept = beside, is_kept


class StoredMultipart(FakeMultipart):
    """An upload in parts, each of them a file."""

    def complete(self, body: Iterator[tuple[int, str]]) -> Any:
        """Check the parts; return their bytes in blocks, the ETag, and the checksum where it is one of checksums."""
        chosen = list(body)
        _, etag, _ = super().complete(iter(chosen))
        stored: list[Any] = [self.parts[number] for number, _ in chosen]
        parts = [StoredBytes(part, 0, part.contentsize) for part in stored]
        checksum = MultipartChecksumBuilder(
            *(self.metadata.get(f"x-amz-checksum-{word}") for word in ("algorithm", "type"))
        )
        for part in parts if checksum.checksum_type == "COMPOSITE" else ():
            checksum.addPart(bytes(part))
        return itertools.chain.from_iterable(parts), etag, checksum.build() if checksum.part_count else None


@contextlib.contextmanager
def staged(root: Path, value: Path | Iterable[bytes] | bytes = b"") -> Iterator[Path]:
    """Yield a file on the store's disk that holds a value; unless it is taken, it is gone afterwards."""
    path = root / INCOMING / uuid.uuid4().hex
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(value, Path):
            link(value, path)
        else:
            with path.open("wb") as file:
                file.writelines([value] if isinstance(value, bytes) else value)
        yield path
    finally:
        path.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Give a file that does not change a second name, or copy it to another disk."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def note(bucket: str, version: Any, is_removed: bool = False) -> None:
    """Write to the index what the next start has to know of a version of an object."""
    about: dict[str, Any] = {"deleted": version.last_modified.isoformat()}
    if is_removed:
        about = {"removed": True}
    elif isinstance(version, StoredKey):
        own = {name: str(value) for name, value in version.metadata.items()}
        about = {"stamp": stamp(version.path), "metadata": own, "etag": version._etag}
    StoredKey.index.append({"bucket": bucket, "key": version.name, "version": version.version_id, **about})


def stamp(path: Path) -> list[int]:
    """Return what tells a file from the one that was there before: its size in bytes, its time in ns."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def make_room(root: Path, bucket: str, key: str) -> Path:
    """Make an object's folder and return its path; an object that stands in the way moves to its name with `%`."""
    path = object_path(root, bucket, key)
    for parent in reversed(path.relative_to(root / bucket).parents):
        folder = root / bucket / parent
        if folder.is_file():
            link(folder, folder.with_name(folder.name + "%"))
            folder.unlink()
            folder.mkdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def show(bucket: str, key: str, version: Any) -> None:
    """Put the newest version of an object into its place, if it is not there; nothing where that is its deletion."""
    place = object_path(StoredKey.root, bucket, key)
    if not isinstance(version, StoredKey):
        place.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # up to the first folder that has something
            os.removedirs(place.parent)
    elif version.path != place:
        with staged(StoredKey.root, version.path) as file:
            file.replace(make_room(StoredKey.root, bucket, key))
