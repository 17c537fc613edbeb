"""S3 on this machine: moto's S3 with durable objects, and the direct way to them for the engine itself.

Reads and writes `<state>/s3/<bucket>/<key>`, and `<state>/s3.jsonl` with what a file cannot hold (ETag, metadata).
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import moto.s3.models as moto_s3
from moto.core.exceptions import ServiceException
from moto.s3.models import FakeBucket, S3Backend, s3_backends

from params.s3 import is_under, split_uri
from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.journal import Journal
from pipeline_definition.local.settings import ACCOUNT, REGION
from pipeline_definition.local.stored_object import StoredKey, key_of, object_path

_INCOMING = ".incoming"


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return (bucket, key) of s3://bucket/key, or fail as a SageMaker job does."""
    return split_uri(uri, lambda problem: StepFailureError(f"ClientError: {problem}"))


class DurableS3Backend(S3Backend):
    """moto's S3 whose objects are files."""

    writing = threading.RLock()

    def create_bucket(self, bucket_name: str, region_name: str, bucket_namespace: str | None = None) -> FakeBucket:
        """Create a bucket and its folder."""
        bucket = super().create_bucket(bucket_name, region_name, bucket_namespace)
        (StoredKey.root / bucket_name).mkdir(parents=True, exist_ok=True)
        return bucket

    def delete_bucket(self, bucket_name: str) -> FakeBucket | None:
        """Delete an empty bucket and its folder."""
        bucket = super().delete_bucket(bucket_name)
        if bucket is not None:
            shutil.rmtree(StoredKey.root / bucket_name)
        return bucket

    def put_object(self, bucket_name: str, key_name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Write one object."""
        with self.writing:
            self._keep_version(bucket_name, key_name)
            return super().put_object(bucket_name, key_name, value, *args, **kwargs)

    def delete_object(
        self, bucket_name: str, key_name: str, version_id: str | None = None, bypass: bool = False
    ) -> tuple[bool, dict[str, Any]]:
        """Delete one object, or one version of it."""
        with self.writing:
            path = object_path(StoredKey.root, bucket_name, key_name)
            if version_id is None:
                self._keep_version(bucket_name, key_name)
            deleted = super().delete_object(bucket_name, key_name, version_id, bypass)
            current = self.get_bucket(bucket_name).keys.get(key_name)
            if not getattr(current, "in_file", False) and path.is_file():
                path.unlink()
                _remove_empty_parents(path.parent, StoredKey.root / bucket_name)
            return deleted

    def complete_multipart_upload(self, bucket_name: str, multipart_id: str, body: Any) -> Any:
        """Join an upload's parts into one object, and let go of them."""
        key = super().complete_multipart_upload(bucket_name, multipart_id, body)
        if key is not None:
            key.multipart = None
        return key

    def _keep_version(self, bucket_name: str, key_name: str) -> None:
        bucket = self.get_bucket(bucket_name)
        current = bucket.keys.get(key_name)
        if bucket.is_versioned and isinstance(current, StoredKey):
            current.detach()


class ObjectStore:
    """The engine's own way to S3, without HTTP, under the jobs' role."""

    denied: tuple[str, ...] = ()
    """Addresses that the role may neither read nor write."""

    def __init__(self, root: Path, index: Path) -> None:
        StoredKey.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._index = StoredKey.index = Journal(index)
        # moto makes its objects and backends by these names.
        moto_s3.FakeKey = StoredKey  # type: ignore[misc]
        s3_backends.backend = DurableS3Backend
        self._backend: Any = s3_backends[ACCOUNT]["aws"]

        self._load()

    def exists(self, uri: str) -> bool:
        """Whether there is an object of exactly this URI."""
        bucket, key = bucket_and_key(uri)
        return bucket in self._backend.buckets and isinstance(self._backend.buckets[bucket].keys.get(key), StoredKey)

    def read(self, uri: str) -> bytes:
        """Return an object's bytes; StepFailureError where there is none."""
        return self.file(uri).read_bytes()

    def file(self, uri: str) -> Path:
        """Return an object's file; StepFailureError where there is none."""
        bucket, key = self._located(uri, "Data download failed:Unable to download object")
        stored = bucket.keys.get(key)
        if not isinstance(stored, StoredKey):
            raise StepFailureError(f"ClientError: there is no object {uri}")
        return stored.path

    def keys(self, uri: str) -> list[str]:
        """Return the keys under a prefix in order: the object itself, else what lies in the folder of that name."""
        bucket, key = self._located(uri, "Data download failed:Unable to list objects under")
        live = [name for name, stored in bucket.keys.items() if isinstance(stored, StoredKey)]
        if key in live and not key.endswith("/"):
            return [key]
        folder = f"{key.rstrip('/')}/" if key else ""
        return sorted(name for name in live if name.startswith(folder) and not name.endswith("/"))

    def put(self, uri: str, content: bytes | Path) -> None:
        """Write an object of bytes, or of a file that will not change again."""
        bucket, key = self._located(uri, "Data upload failed:Unable to upload")
        self._backend.put_object(bucket.name, key, content)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield the path of a file on the store's disk that is gone afterwards."""
        path = StoredKey.root / _INCOMING / uuid.uuid4().hex
        path.parent.mkdir(exist_ok=True)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _located(self, uri: str, failure: str) -> tuple[Any, str]:
        """Return an address's bucket and key.

        Raises StepFailureError in the words of a job's end, `failure` first, where the role is denied the address:
        https://github.com/aws/amazon-sagemaker-examples/issues/4384.
        """
        if is_under(uri, self.denied):
            raise StepFailureError(f"ClientError: {failure} {uri} (AccessDenied: Access Denied)")
        bucket, key = bucket_and_key(uri)
        try:
            return self._backend.get_bucket(bucket), key
        except ServiceException:
            raise StepFailureError(f"ClientError: there is no bucket {bucket!r}") from None

    def _load(self) -> None:
        """Take up the objects that lie on disk."""
        notes = {(entry["bucket"], entry["key"]): entry for entry in self._index.entries()}
        kept = []
        for left in StoredKey.root.glob(f"{_INCOMING}/*"):
            left.unlink()
        for bucket_dir in sorted(path for path in StoredKey.root.iterdir() if path.name != _INCOMING):
            bucket = self._backend.create_bucket(bucket_dir.name, REGION)
            for path in sorted(path for path in bucket_dir.rglob("*") if path.is_file()):
                key, status = key_of(bucket_dir, path), path.stat()
                note = notes.get((bucket_dir.name, key), {})
                stored: Any = StoredKey(key, path, ACCOUNT, REGION, bucket_name=bucket.name)  # type: ignore[arg-type]
                stored.last_modified = datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None)
                if note.get("stamp") == [status.st_size, status.st_mtime_ns]:
                    stored._etag = note["etag"]
                    stored.metadata.update(note.get("metadata", {}))
                    kept.append(note)
                bucket.keys.setlist(key, [stored])
        self._index.rewrite(kept)


def _remove_empty_parents(folder: Path, stop: Path) -> None:
    while folder != stop and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
