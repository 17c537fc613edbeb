"""FSx for Lustre on this machine: a folder, filled from the S3 prefixes that it is associated with.

Reads the associated objects, writes <state>/fsx/<file system>/...; answers the FSx operations that a pipeline's
infrastructure needs, those that moto lacks among them.
"""

from __future__ import annotations

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
    """All file systems and their associations."""

    import_lag_s = 0.0
    """How long after its object in S3 a file appears."""

    def __init__(self, folder: Path, records: Path, store: ObjectStore) -> None:
        self._folder, self._store = folder, store
        self._systems = Records(records / "file-systems")
        self._associations = Records(records / "data-repository-associations")
        self._importing = threading.Lock()

    def create_file_system(self, request: Mapping[str, Any]) -> Record:
        """Answer fsx:CreateFileSystem."""
        if request.get("FileSystemType") != "LUSTRE":
            raise _bad_request(f"FileSystemType {request.get('FileSystemType')!r}: only LUSTRE exists on this machine")
        name = f"fs-{uuid.uuid4().hex[:17]}"
        known = ("FileSystemType", "StorageCapacity", "StorageType", "SubnetIds", "KmsKeyId", "Tags")
        record = {key: request[key] for key in known if key in request} | {
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
        """Answer fsx:DescribeFileSystems."""
        names = request.get("FileSystemIds") or [record["FileSystemId"] for record in self._systems.all()]
        return {"FileSystems": [self._system(name) for name in names]}

    def delete_file_system(self, request: Mapping[str, Any]) -> Record:
        """Answer fsx:DeleteFileSystem; the files go, the objects in S3 stay."""
        name = self._system(request["FileSystemId"])["FileSystemId"]
        for association in self._associations_of(name):
            self._associations.delete(association["AssociationId"])
        self._systems.delete(name)
        shutil.rmtree(self._folder / name, ignore_errors=True)
        return {"FileSystemId": name, "Lifecycle": "DELETING"}

    def create_association(self, request: Mapping[str, Any]) -> Record:
        """Answer fsx:CreateDataRepositoryAssociation."""
        system = self._system(request["FileSystemId"])["FileSystemId"]
        path = "/" + str(request.get("FileSystemPath", "/")).strip("/")
        if any(_overlap(path, other["FileSystemPath"]) for other in self._associations_of(system)):
            raise _bad_request(f"FileSystemPath {path!r} overlaps with another association of {system}")
        name = f"dra-{uuid.uuid4().hex[:17]}"
        known = ("DataRepositoryPath", "BatchImportMetaDataOnCreate", "ImportedFileChunkSize", "S3", "Tags")
        record = {key: request[key] for key in known if key in request} | {
            "AssociationId": name,
            "ResourceARN": f"arn:aws:fsx:{REGION}:{ACCOUNT}:association/{system}/{name}",
            "FileSystemId": system,
            "FileSystemPath": path,
            "Lifecycle": "AVAILABLE",
            "CreationTime": time.time(),
        }
        return {"Association": self._associations.put(name, record)}

    def describe_associations(self, request: Mapping[str, Any]) -> Record:
        """Answer fsx:DescribeDataRepositoryAssociations."""
        chosen = request.get("AssociationIds")
        wanted = {item["Name"]: item["Values"] for item in request.get("Filters") or ()}
        systems = wanted.get("file-system-id")
        records = [
            record
            for record in self._associations.all()
            if (not chosen or record["AssociationId"] in chosen)
            and (systems is None or record["FileSystemId"] in systems)
        ]
        return {"Associations": records}

    def delete_association(self, request: Mapping[str, Any]) -> Record:
        """Answer fsx:DeleteDataRepositoryAssociation."""
        name = request["AssociationId"]
        missing = RefusedRequestError("DataRepositoryAssociationNotFound", f"There is no association {name}")
        record = self._associations.get(name, missing)
        self._associations.delete(name)
        if request.get("DeleteDataInFileSystem"):
            shutil.rmtree(self._target(record), ignore_errors=True)
        return {"AssociationId": name, "Lifecycle": "DELETING"}

    def mount(self, source: Mapping[str, Any]) -> Path:
        """Bring in what S3 has for a FileSystemDataSource; return the folder that its DirectoryPath means.

        Raises StepFailureError that names the file system or the path that does not exist.
        """
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
            if self._store.age_s(source) < self.import_lag_s:
                inside(target, name).parent.mkdir(parents=True, exist_ok=True)
            else:
                _refresh(self._store.file(source), inside(target, name))
        policy = association.get("S3", {}).get("AutoImportPolicy", {}).get("Events", ())
        if "DELETED" in policy:
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


def _bad_request(message: str) -> RefusedRequestError:
    return RefusedRequestError("BadRequest", message)
