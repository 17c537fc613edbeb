"""An artifact: parts under a prefix, a record after each part, the manifest last; and the identity that compares them.

    NNNNN.tar             a part
    NNNNN.verified.json   its record, with the digest of its identity; without it, or at another size, a part is missing
                          (in records/, where a file system shows the parts: their folder has half as many files)
    identity.json         the identity: the settings and digests that decide the content of the parts
    manifest.json         describes the whole, written last

Download, Encode, the reference set, Evaluate's pictures and Train's checkpoints each use the pieces that they need.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from pydantic import ValidationError

from params.files import write_bytes
from params.layout import MANIFEST_FILE
from params.model import Model
from steps.data.storage import Storage

IDENTITY_FILE: Final = "identity.json"
RECORD_SUFFIX: Final = ".verified.json"
RECORDS_FOLDER: Final = "records/"

Identity = Mapping[str, Any]


class PartRecord(Model, ABC):
    folder: ClassVar[str] = ""
    """Where records go, under the artifact's prefix; those of earlier releases, beside their parts, count as well."""
    plan_digest: str
    """Digest of the part's identity: parts with another one do not count."""

    @property
    @abstractmethod
    def part(self) -> tuple[str, int]:
        """Name and size in bytes of the part."""

    def write(self, storage: Storage) -> None:
        """Write the record, after its part."""
        storage.write(f"{self.folder}{_record_name(self.part[0])}", self.model_dump_json().encode())


R = TypeVar("R", bound=PartRecord)


class Artifact:
    """The artifact of one identity under one prefix."""

    def __init__(self, uri: str, identity: Identity, extent: Sequence[object] = ()) -> None:
        """Nothing is looked up yet. `extent` decides what is made of the parts (params.model)."""
        self.storage, self._identity = Storage(uri), identity
        self.parts_digest = digest(identity)
        self.digest = digest([self.parts_digest, *extent]) if extent else self.parts_digest
        self.former_digest = ""
        """What an earlier release called the whole."""

    def finished(self, kind: type[R]) -> dict[str, R]:
        """Return the records, by part, of the parts that are whole and have this identity."""
        return {name: one for name, one in self.recorded(kind).items() if one.plan_digest == self.parts_digest}

    def recorded(self, kind: type[R]) -> dict[str, R]:
        """Return the records, by part, of the parts that are whole, whatever their identity."""
        sizes, records = self.storage.sizes(), dict[str, R]()
        contents = self.storage.read_many([name for name in sizes if name.endswith(RECORD_SUFFIX)])
        if kind.folder:
            apart = Storage(f"{self.storage.uri}/{kind.folder}")
            contents |= apart.read_many(list(apart.sizes()))
        for file, content in contents.items():
            try:
                record = kind.model_validate_json(content)
            except ValidationError:
                continue
            name, size = record.part
            if file == _record_name(name) and sizes.get(name) == size:
                records[name] = record
        return records

    def published(self, *files: str) -> dict[str, bytes] | None:
        """Return the manifest, and these files, by name; None where they are not there or are of another artifact."""
        try:
            contents = {name: self.storage.read(name) for name in (MANIFEST_FILE, *files)}
            names = (self.digest, self.former_digest)
            return contents if json.loads(contents[MANIFEST_FILE])["plan_digest"] in names else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def begin(self) -> None:
        """Withdraw the manifest of another artifact before its parts are replaced, and say what differs."""
        self.storage.make()
        self.storage.abort_uploads()
        if self.storage.size(MANIFEST_FILE) is not None and self.published() is None:
            self.storage.delete(MANIFEST_FILE)
            print(f"{self.storage.uri}: holds another artifact; parts that do not fit are made anew", flush=True)
        self.note_identity()

    def note_identity(self) -> None:
        """Write the identity, and say how it differs from the one before."""
        before, text = "", to_text(self._identity)
        with suppress(FileNotFoundError):
            before = self.storage.read(IDENTITY_FILE).decode(errors="replace")
        if before != text:
            print_differences(self.storage.uri, before, self._identity)
            self.storage.write(IDENTITY_FILE, text.encode())


def publish(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of an artifact, each whole or not at all, the manifest last."""
    for name in sorted(files, key=lambda name: name == MANIFEST_FILE):
        write_bytes(folder / name, files[name])


def digest(identity: object) -> str:
    """Return the sha256 of an identity: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def to_text(identity: Identity) -> str:
    """Return the content of an identity's file."""
    return json.dumps(identity, indent=1, sort_keys=True)


def from_text(text: str) -> Identity | None:
    """Return the identity of a file's content, or None if it is not one."""
    try:
        identity = json.loads(text)
    except ValueError:
        return None
    return identity if isinstance(identity, dict) else None


def print_differences(place: object, before: str, now: Identity) -> None:
    """Say how an artifact differs from the one whose identity file held `before`."""
    former = from_text(before)
    if former is not None:
        print(f"{place}: made anew, since {differences(former, now)}", flush=True)


def differences(before: Identity, now: Identity) -> str:
    """Return how two identities differ, as in `learning_rate was 0.0001 and is 0.0002`."""
    old, new = dict(_flat(before)), dict(_flat(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} was {_short(old.get(name))} and is {_short(new.get(name))}" for name in names)


def _flat(identity: Identity, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and JSON values; settings get no prefix."""
    for name, value in identity.items():
        if isinstance(value, dict):
            yield from _flat(value, "" if name == "settings" else f"{prefix}{name}.")
        else:
            yield prefix + name, json.dumps(value)


def _short(text: str | None) -> str:
    """Return a value for one line: of a long one, such as a digest, the first digits."""
    if text is None:
        return "not set"
    return text if len(text) <= 40 else f"{text[1:13]}..."


def _record_name(part: str) -> str:
    return part.removesuffix(".tar") + RECORD_SUFFIX
