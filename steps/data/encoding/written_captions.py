"""The captions artifact: what Recaption writes beside the shards, which stay as they are, and Encode reads.

NNNNN.captions.parquet  of each sample of shard NNNNN: key, caption (empty: none was written)
manifest.json           model, prompt and counts, written last

and beside each parquet its record, without which it does not exist (steps.artifact).
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from params.layout import WRITTEN_CAPTIONS_SUFFIX
from params.model import Model
from steps.artifact import PartRecord, digest
from steps.data.parquet import read_parquet
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.storage import Storage
from steps.errors import StepError


class CaptionsRecord(PartRecord):
    """What the record of a shard's captions holds."""

    shard: str
    bytes: int
    source: str
    """See `source_of`."""
    samples: int
    failed: int
    """Samples for which none was written."""

    @property
    def part(self) -> tuple[str, int]:
        """Name and size of the parquet."""
        return captions_name(self.shard), self.bytes


class CaptionsManifest(Model):
    """The written captions of a set, and what wrote them."""

    plan_digest: str
    source_manifest_digest: str
    """Of the shards' manifest."""
    captioner_digest: str
    prompt: str
    written: int
    """Samples with a written caption."""
    failed: int
    """Samples of which the captioner wrote no word, or no whole sentence: they fall back to their original caption."""


def captions_name(shard: str) -> str:
    return shard.removesuffix(".tar") + WRITTEN_CAPTIONS_SUFFIX


def source_of(shard: VerifiedShard) -> str:
    """Return what a shard's captions stay valid for: a digest of its bytes, and of how many of its samples count."""
    return digest([shard.sha256, shard.samples, shard.dropped])


def write_captions(uri: str, plan_digest: str, shard: VerifiedShard, captions: Mapping[str, str]) -> CaptionsRecord:
    """Write the captions of a shard, by key, and then their record. Raises OSError where they do not arrive."""
    buffer, storage, name = io.BytesIO(), Storage(uri), captions_name(shard.name)
    keys = sorted(captions)
    pq.write_table(pa.table({"key": keys, "caption": [captions[key] for key in keys]}), buffer)
    storage.write_checked(name, buffer.getvalue())
    record = CaptionsRecord(
        plan_digest=plan_digest,
        shard=shard.name,
        bytes=len(buffer.getvalue()),
        source=source_of(shard),
        samples=len(captions),
        failed=list(captions.values()).count(""),
    )
    record.write(storage)
    return record


def captions_of(storage: Storage, shard: str) -> dict[str, str]:
    """Return the written captions of a shard by key. Raises StepError where they are not there."""
    name = captions_name(shard)
    try:
        table = read_parquet(storage.read(name), ("key", "caption"))
    except (FileNotFoundError, pa.ArrowInvalid):
        raise StepError(f"{storage.uri}/{name}: not there, or no parquet; run Recaption again") from None
    return dict(zip(table["key"].to_pylist(), table["caption"].to_pylist(), strict=True))


def captions_digest(path: Path, shards_digest: str) -> str:
    """Return the digest of a manifest of captions. Raises StepError unless they are of the shards with this digest."""
    try:
        manifest = CaptionsManifest.model_validate_json(content := path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StepError(f"{path}: no manifest of captions, which Recaption writes last ({error})") from None
    if manifest.source_manifest_digest != shards_digest:
        raise StepError(f"{path}: these captions are of other shards; run Recaption again")
    return hashlib.sha256(content).hexdigest()
