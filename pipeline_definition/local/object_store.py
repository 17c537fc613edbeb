"""S3 on this machine: moto's S3 with durable objects, and the direct way to them for the engine itself.

Reads and writes `<state>/s3/<bucket>/<key>`, and `<state>/s3.jsonl` with what a file cannot hold (ETag, metadata).
"""

import contextlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import moto.s3.models as moto_s3
import moto.s3.responses as moto_responses
from moto.core.exceptions import ServiceException
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeBucket, FakeDeleteMarker, S3Backend, s3_backends

from params.s3 import is_under, split_uri
from pipeline_definition.local import stored_object
from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.journal import Journal
from pipeline_definition.local.settings import ACCOUNT, REGION
from pipeline_definition.local.stored_object import INCOMING, UNVERSIONED, VERSIONS, StoredKey, StoredMultipart

_MAX_KEY_BYTES = 1024


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return (bucket, key) of s3://bucket/key, or fail as a SageMaker job does."""
    return split_uri(uri, lambda problem: StepFailureError(f"ClientError: {problem}"))


class DurableS3Backend(S3Backend):
    @property
    def flask_paths(self) -> dict[str, Any]:
        """The routes; a key may have a line's end in it."""
        return {path.replace('".+"', r'"[\s\S]+"'): view for path, view in super().flask_paths.items()}

    def put_object(self, bucket_name: str, key_name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if len(key_name.encode()) > _MAX_KEY_BYTES:
            raise S3ClientError("KeyTooLongError", "Your key is too long")
        bucket = self.get_bucket(bucket_name)
        with stored_object.staged(StoredKey.root, value) as file, self._changing(bucket, key_name):
            return super().put_object(bucket_name, key_name, file, *args, **kwargs)  # type: ignore[arg-type]

    def delete_object(
        self, bucket_name: str, key_name: str, version_id: str | None = None, bypass: bool = False
    ) -> tuple[bool, dict[str, Any]]:
        with self._changing(self.get_bucket(bucket_name), key_name):
            return super().delete_object(bucket_name, key_name, version_id, bypass)

    def complete_multipart_upload(self, bucket_name: str, multipart_id: str, body: Any) -> Any:
        """Join an upload's parts into one object, and let go of them."""
        key: Any = super().complete_multipart_upload(bucket_name, multipart_id, body)
        key.multipart = None
        return key

    @contextlib.contextmanager
    def _changing(self, bucket: FakeBucket, key: str) -> Iterator[None]:
        """Change the versions of one key; then let index and file say what they are."""
        with StoredKey.changing:
            before = list(bucket.keys.getlist(key, []))
            if before and isinstance(before[-1], StoredKey):
                before[-1].step_aside(bucket.is_versioned)
            yield
            after = bucket.keys.getlist(key, [])
            gone = [version for version in before if version not in after]
            for version in gone:
                version.is_kept = False
            for version in [*gone, *(version for version in after if version not in before)]:
                if version.version_id != UNVERSIONED:  # else the file is enough
                    stored_object.note(bucket.name, version, is_removed=version in gone)
            stored_object.show(bucket.name, key, after[-1] if after else None)


class ObjectStore:
    """The engine's own way to S3, without HTTP, under the jobs' role."""

    denied: tuple[str, ...] = ()
    """Addresses that the role may neither read nor write."""

    def __init__(self, root: Path, index: Path) -> None:
        StoredKey.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._index = StoredKey.index = Journal(index)
        # moto makes its objects and backends by these names.
        moto_s3.FakeKey, moto_s3.FakeMultipart = StoredKey, StoredMultipart  # type: ignore[misc]
        checksum = moto_responses.compute_checksum  # type: ignore[attr-defined]
        moto_responses.compute_checksum = lambda body, **how: checksum(bytes(body), **how)  # type: ignore[attr-defined]
        s3_backends.backend = DurableS3Backend
        self._backend: Any = s3_backends[ACCOUNT]["aws"]

        self._load()

    def exists(self, uri: str) -> bool:
        bucket, key = bucket_and_key(uri)
        return bucket in self._backend.buckets and isinstance(self._backend.buckets[bucket].keys.get(key), StoredKey)

    def read(self, uri: str) -> bytes:
        """Return an object's bytes; StepFailureError where there is none."""
        return self.file(uri).read_bytes()

    def file(self, uri: str) -> Path:
        """Return an object's file; StepFailureError where there is none."""
        bucket, key = self._located(uri, "Data download failed:Unable to download object")
        if not isinstance(bucket.keys.get(key), StoredKey):
            raise StepFailureError(f"ClientError: there is no object {uri}")
        return stored_object.object_path(StoredKey.root, bucket.name, key)

    def keys(self, uri: str, is_folder: bool = True) -> list[str]:
        """Return the keys in a folder in order, or the object of its name; unless `is_folder`, those that begin so."""
        bucket, key = self._located(uri, "Data download failed:Unable to list objects under")
        live = [name for name, stored in bucket.keys.items() if isinstance(stored, StoredKey)]
        if is_folder and key in live and not key.endswith("/"):
            return [key]
        folder = f"{key.rstrip('/')}/" if key and is_folder else key
        return sorted(name for name in live if name.startswith(folder) and not name.endswith("/"))

    def put(self, uri: str, content: bytes | Path) -> None:
        """Write an object of bytes, or of a file that will not change again."""
        bucket, key = self._located(uri, "Data upload failed:Unable to upload")
        self._backend.put_object(bucket.name, key, content)

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """Yield the path of a file on the store's disk that is gone afterwards."""
        return stored_object.staged(StoredKey.root)

    def _located(self, uri: str, failure: str) -> tuple[Any, str]:
        """Return an address's bucket and key; StepFailureError, `failure` first, where the role is denied it.

        In the words of a job's end: https://github.com/aws/amazon-sagemaker-examples/issues/4384.
        """
        if is_under(uri, self.denied):
            raise StepFailureError(f"ClientError: {failure} {uri} (AccessDenied: Access Denied)")
        bucket, key = bucket_and_key(uri)
        try:
            return self._backend.get_bucket(bucket), key
        except ServiceException:
            raise StepFailureError(f"ClientError: there is no bucket {bucket!r}") from None

    def _load(self) -> None:
        """Take up the objects that lie on disk: first the versions that the index knows, in order, then other files."""
        notes: dict[tuple[str, str, str], dict[str, Any]] = {}
        for entry in self._index.entries():
            name = (entry["bucket"], entry["key"], entry.get("version", UNVERSIONED))
            notes.pop(name, None)
            if "removed" not in entry:
                notes[name] = entry
        shutil.rmtree(StoredKey.root / INCOMING, ignore_errors=True)
        folders = {path.name for path in StoredKey.root.iterdir() if path.is_dir() and path.name != VERSIONS}
        for bucket in sorted(folders.union(bucket for bucket, _, _ in notes)):
            self._backend.create_bucket(bucket, REGION)
        self._index.rewrite([entry for name, entry in notes.items() if self._restored(*name, entry)])
        for bucket in sorted(folders):
            for path in sorted(path for path in (StoredKey.root / bucket).rglob("*") if path.is_file()):
                key = stored_object.key_of(StoredKey.root / bucket, path)
                stored = [version for version in self._versions(bucket, key) if isinstance(version, StoredKey)]
                if stored_object.stamp(path) not in [stored_object.stamp(version.path) for version in stored]:
                    self._add(bucket, key, path, UNVERSIONED, {})

    def _restored(self, bucket: str, key: str, version: str, entry: dict[str, Any]) -> bool:
        """Add a version that the index has; return False where its file is not there any more."""
        aside = stored_object.version_path(StoredKey.root, bucket, key, version)
        path = aside if aside.is_file() else stored_object.object_path(StoredKey.root, bucket, key)
        if "deleted" in entry:
            marker: Any = FakeDeleteMarker(SimpleNamespace(name=key))  # type: ignore[arg-type]
            marker._version_id, marker.last_modified = version, datetime.fromisoformat(entry["deleted"])
            self._versions(bucket, key).append(marker)
        elif path.is_file() and stored_object.stamp(path) == entry.get("stamp"):
            self._add(bucket, key, path, version, entry)
        else:
            return False
        return True

    def _add(self, bucket: str, key: str, path: Path, version: str, entry: dict[str, Any]) -> None:
        about: Any = {"bucket_name": bucket, "version_id": version, "is_versioned": version != UNVERSIONED}
        stored: Any = StoredKey(key, path, ACCOUNT, REGION, etag=entry.get("etag"), **about)  # type: ignore[arg-type]
        stored.last_modified = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)
        stored.metadata.update(entry.get("metadata", {}))
        self._versions(bucket, key).append(stored)

    def _versions(self, bucket: str, key: str) -> list[Any]:
        """The versions of an object, oldest first: moto's own list."""
        versions: list[Any] = dict.setdefault(self._backend.buckets[bucket].keys, key, [])
        return versions
