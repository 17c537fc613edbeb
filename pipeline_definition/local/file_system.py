"""FSx for Lustre on this machine: a folder, filled from the S3 prefixes that it is associated with.

Reads the associated objects, writes <state>/fsx/<file system>/...; answers the FSx operations that a pipeline needs.
"""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from params.files import whole_file
from pipeline_definition.local.errors import RefusedRequestError, StepFailureError
from pipeline_definition.local.object_store import ObjectStore, bucket_and_key
from pipeline_definition.local.records import Record, Records
from pipeline_definition.local.settings import ACCOUNT, REGION
from pipeline_definition.local.storage import inside

# FSx gives random mount names on AWS; a fixed one lets the local parameter set name its path.
MOUNT_NAME = "fsx"


class FileSystems:
    import_lag_s = 0.0
    """How long after its object in S3 a file appears."""

    def __init__(self, folder: Path, records: Path, store: ObjectStore) -> None:
        self._folder, self._store = folder, store
        self._systems = Records(records / "file-systems")
        self._associations = Records(records / "data-repository-associations")
        self._importing = threading.Lock()

    def create_file_system(self, request: Mapping[str, Any]) -> Record:
        if request.get("FileSystemType") != "LUSTRE":
            problem = f"FileSystemType {request.get('FileSystemType')!r}: only LUSTRE exists on this machine"
            raise RefusedRequestError("BadRequest", problem)
        name = f"fs-{uuid.uuid4().hex[:17]}"
        record = {
            **request,
            "FileSystemId": name,
            "OwnerId": ACCOUNT,
            "CreationTime": time.time(),
            "Lifecycle": "AVAILABLE",
            "DNSName": f"{name}.fsx.{REGION}.amazonaws.com",
            "ResourceARN": f"arn:aws:fsx:{REGION}:{ACCOUNT}:file-system/{name}",
            "LustreConfiguration": {**request.get("LustreConfiguration", {}), "MountName": MOUNT_NAME},
        }
        (self._folder / name).mkdir(parents=True)
        return {"FileSystem": self._systems.put(name, record)}

    def describe_file_systems(self, request: Mapping[str, Any]) -> Record:
        names = request.get("FileSystemIds") or [record["FileSystemId"] for record in self._systems.all()]
        return {"FileSystems": [self._system(name) for name in names]}

    def create_data_repository_association(self, request: Mapping[str, Any]) -> Record:
        system = self._system(request["FileSystemId"])["FileSystemId"]
        path = "/" + str(request.get("FileSystemPath", "/")).strip("/")
        if any(_overlap(path, other["FileSystemPath"]) for other in self._associations_of(system)):
            problem = f"FileSystemPath {path!r} overlaps with another association of {system}"
            raise RefusedRequestError("BadRequest", problem)
        name = f"dra-{uuid.uuid4().hex[:17]}"
        record = {
            **request,
            "AssociationId": name,
            "ResourceARN": f"arn:aws:fsx:{REGION}:{ACCOUNT}:association/{system}/{name}",
            "FileSystemId": system,
            "FileSystemPath": path,
            "Lifecycle": "AVAILABLE",
            "CreationTime": time.time(),
        }
        return {"Association": self._associations.put(name, record)}

    def describe_data_repository_associations(self, request: Mapping[str, Any]) -> Record:
        chosen = request.get("AssociationIds")
        systems = {item["Name"]: item["Values"] for item in request.get("Filters") or ()}.get("file-system-id")
        records = [record for record in self._associations.all() if not chosen or record["AssociationId"] in chosen]
        return {"Associations": [record for record in records if systems is None or record["FileSystemId"] in systems]}

    def mount(self, source: Mapping[str, Any]) -> Path:
        """Bring in what S3 has; return the folder of a FileSystemDataSource. StepFailureError names what is missing."""
        if source["FileSystemType"] != "FSxLustre":
            raise StepFailureError(f"ClientError: FileSystemType {source['FileSystemType']!r} is not supported")
        system = self._systems.find(source["FileSystemId"])
        if system is None:
            raise StepFailureError(f"ClientError: there is no file system {source['FileSystemId']}")
        path = PurePosixPath(source["DirectoryPath"])
        mount_name = system["LustreConfiguration"]["MountName"]
        if path.parts[:2] != ("/", mount_name):
            raise StepFailureError(f"ClientError: DirectoryPath {str(path)!r} does not begin with /{mount_name}")
        self.refresh([system["FileSystemId"]])
        folder = inside(self._folder / system["FileSystemId"], "/".join(path.parts[2:]))
        if not folder.is_dir():
            raise StepFailureError(f"ClientError: {source['FileSystemId']} has no folder {str(path)!r}")
        return folder

    def refresh(self, systems: Iterable[str]) -> None:
        """Bring in what S3 has by now for some file systems."""
        with self._importing:
            for system in systems:
                for association in self._associations_of(system):
                    self._import(association)

    def _import(self, association: Record) -> None:
        """Copy new and changed objects; remove files whose objects are gone where the policy says so."""
        uri = association["DataRepositoryPath"].rstrip("/")
        bucket, prefix = bucket_and_key(uri + "/")
        target = self._target(association)
        target.mkdir(parents=True, exist_ok=True)
        names = {key.removeprefix(prefix): f"s3://{bucket}/{key}" for key in self._store.keys(uri + "/")}
        for name, source in names.items():
            file = self._store.file(source)
            inside(target, name).parent.mkdir(parents=True, exist_ok=True)
            if time.time() - file.stat().st_ctime >= self.import_lag_s:
                _refresh(file, inside(target, name))
        if "DELETED" in association.get("S3", {}).get("AutoImportPolicy", {}).get("Events", ()):
            for path in [path for path in target.rglob("*") if path.is_file()]:
                if path.relative_to(target).as_posix() not in names:
                    path.unlink()

    def _target(self, association: Record) -> Path:
        return inside(self._folder / association["FileSystemId"], association["FileSystemPath"].strip("/"))

    def _associations_of(self, system: str) -> list[Record]:
        return [record for record in self._associations.all() if record["FileSystemId"] == system]

    def _system(self, name: str) -> Record:
        return self._systems.get(name, RefusedRequestError("FileSystemNotFound", f"There is no file system {name!r}"))


def _refresh(source: Path, target: Path) -> None:
    """Copy an object unless it is there already; an object's file is new at each change, and so is its time."""
    new = source.stat()
    old = target.stat() if target.is_file() else None
    if old and (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
        return
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
        os.utime(partial, ns=(new.st_atime_ns, new.st_mtime_ns))


def _overlap(first: str, second: str) -> bool:
    one, other = PurePosixPath(first), PurePosixPath(second)
    return one.is_relative_to(other) or other.is_relative_to(one)
