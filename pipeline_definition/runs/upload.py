"""Files to S3: each sent once, verified by S3 by its SHA-256, and nothing overwritten that differs.

Reads files; reads and writes the objects of one prefix, on AWS or on the local control plane. An object carries its
SHA-256 as metadata, so an upload that was interrupted goes on with what is missing; of files with the same content one
is sent, and S3 copies it under the other names.

    sd-pipeline data upload ./photos --stack sd-pipeline
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import ClientError

from params.files import file_digest
from params.s3 import error_code, join_uri, split_uri
from pipeline_definition.errors import OperatorError

# As many as boto3 keeps connections.
THREADS: Final = 10
# S3 takes 5 GB in one request; above this, boto3 sends parts side by side.
ONE_REQUEST_BYTES: Final = 64 << 20
SHA256: Final = "sha256"
MADE_BY: Final = "made-by"
# The code of S3's answer where an object appeared between the listing and the request.
ALREADY_THERE: Final = "PreconditionFailed"


@dataclass(frozen=True)
class Upload:
    """Files, by name below a prefix; `s3` is boto3's client."""

    s3: Any
    uri: str
    """The prefix."""
    files: Mapping[str, Path]
    made_by: str = ""
    """Word in the metadata of each object, by which the maker knows its own; empty: none."""
    replace: bool = False
    """Overwrite what differs."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 by name; what is missing is read from the files."""

    @cached_property
    def there(self) -> dict[str, int]:
        """Sizes of the objects under the prefix, by name; folder markers are passed over."""
        bucket, key = split_uri(join_uri(self.uri, ""))
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        items = (item for page in pages for item in page.get("Contents", ()))
        return {item["Key"][len(key) :]: item["Size"] for item in items if not item["Key"].endswith("/")}

    @cached_property
    def differing(self) -> list[str]:
        """Names under which other content lies."""
        names = [name for name in self.files if name in self.there]
        with ThreadPoolExecutor(THREADS) as pool:
            same = pool.map(self._is_same, names)
            return [name for name, is_same in zip(names, same, strict=True) if not is_same]

    @property
    def missing(self) -> list[str]:
        """Names under which nothing lies."""
        return [name for name in self.files if name not in self.there]

    @property
    def others(self) -> list[str]:
        """Names of objects that no file has."""
        return [name for name in self.there if name not in self.files]

    def send(self, on_bytes: Callable[[int], None] = lambda _: None) -> dict[str, int]:
        """Send what is missing, telling `on_bytes`; return counts. OperatorError, before any, where content differs."""
        if self.differing and not self.replace:
            more = f" and {len(self.differing) - 1} more" if len(self.differing) > 1 else ""
            raise OperatorError(
                f"{join_uri(self.uri, self.differing[0])}{more}: another content lies there, and nothing was sent; "
                "--replace overwrites it, --name NAME takes another prefix"
            )
        names = [*self.missing, *self.differing]
        same = sorted(self.files.keys() - set(names))
        first = {self.digest(name): name for name in reversed([*same, *names])}
        sent = [name for name in names if first[self.digest(name)] == name]
        copied = [name for name in names if first[self.digest(name)] != name]
        on_bytes(sum(self.files[name].stat().st_size for name in same))

        def copy(name: str) -> None:
            self.s3.copy(self._at(first[self.digest(name)]), *self._at(name).values())

        with ThreadPoolExecutor(THREADS) as pool:
            for move, part in ((self._send, sent), (copy, copied)):
                for name, _ in zip(part, pool.map(move, part), strict=True):
                    on_bytes(self.files[name].stat().st_size)
        return {"sent": len(sent), "copied": len(copied), "there": len(same)}

    def is_ours(self, name: str) -> bool:
        """Whether an object under the prefix was made by the same maker."""
        return bool(self._head(name).get("Metadata", {}).get(MADE_BY) == self.made_by)

    def digest(self, name: str) -> str:
        if name not in self.digests:
            self.digests[name] = file_digest(self.files[name])
        return self.digests[name]

    def _is_same(self, name: str) -> bool:
        if self.there[name] != self.files[name].stat().st_size:
            return False
        head = self._head(name)
        known = head.get("Metadata", {}).get(SHA256)
        if known:
            return bool(known == self.digest(name))
        # Of objects that others put there: their ETag is the MD5 where they came in one request and no KMS is used.
        with self.files[name].open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return bool(head["ETag"].strip('"') == md5.hexdigest())

    def _head(self, name: str) -> dict[str, Any]:
        head: dict[str, Any] = self.s3.head_object(**self._at(name))
        return head

    def _send(self, name: str) -> None:
        path, digest = self.files[name], self.digest(name)
        metadata = {SHA256: digest, **({MADE_BY: self.made_by} if self.made_by else {})}
        if path.stat().st_size > ONE_REQUEST_BYTES:
            options = {"Metadata": metadata, "ChecksumAlgorithm": "SHA256"}
            self.s3.upload_file(str(path), *self._at(name).values(), ExtraArgs=options)
            return
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        condition = {} if name in self.there else {"IfNoneMatch": "*"}
        with path.open("rb") as file:
            try:
                self.s3.put_object(**self._at(name), Body=file, Metadata=metadata, ChecksumSHA256=checksum, **condition)
            except ClientError as error:
                if error_code(error) != ALREADY_THERE:
                    raise
                place = join_uri(self.uri, name)
                raise OperatorError(f"{place}: appeared during the upload; run the command again to compare") from None

    def _at(self, name: str) -> dict[str, str]:
        bucket, key = split_uri(join_uri(self.uri, name))
        return {"Bucket": bucket, "Key": key}
