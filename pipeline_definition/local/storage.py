"""S3 to a host's folders and back, as SageMaker does for the inputs and outputs of a job."""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.object_store import ObjectStore, bucket_and_key


def fetch_source(store: ObjectStore, source: Mapping[str, Any], folder: Path, part: int, parts: int) -> None:
    """Fill a folder from a data source for one of several hosts. StepFailureError: there is nothing."""
    part, parts = (part, parts) if source.get("S3DataDistributionType") == "ShardedByS3Key" else (0, 1)
    fetch_prefix(store, source["S3Uri"], folder, part, parts, is_folder=False)


def fetch_prefix(
    store: ObjectStore,
    uri: str,
    folder: Path,
    part: int = 0,
    parts: int = 1,
    required: bool = True,
    is_folder: bool = True,
) -> None:
    """Copy the objects under a prefix into a folder. StepFailureError: it is empty, and `required`.

    With `parts`, only every parts-th key in order, from `part` on: so ShardedByS3Key deals them out.
    """
    bucket, prefix = bucket_and_key(uri)
    keys = store.keys(uri, is_folder)
    if not keys and required:
        raise StepFailureError(f"ClientError: there are no objects under {uri}")
    folder.mkdir(parents=True, exist_ok=True)
    below = prefix.rstrip("/") + "/"
    for key in keys[part::parts]:
        above = below if key.startswith(below) else prefix[: prefix.rfind("/") + 1]
        target = inside(folder, key.removeprefix(above).lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A copy, never a link: a job may write to its inputs, as it may on SageMaker.
        shutil.copyfile(store.file(f"s3://{bucket}/{key}"), target)


def send_folder(store: ObjectStore, folder: Path, uri: str) -> None:
    """Make objects of a folder's files, oldest first; they must not change again."""
    files = sorted((path.stat().st_mtime_ns, path) for path in folder.rglob("*") if path.is_file())
    for _, path in files:
        store.put(f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}", path)


def inside(folder: Path, name: str) -> Path:
    """Return the path of a name in a folder; StepFailureError where it leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise StepFailureError(f"ClientError: object name {name!r} leads out of its folder")
    return folder / path
