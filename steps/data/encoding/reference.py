"""The reference artifact: held-out pictures and captions as WebDataset shards (jpg, txt, json), copied as they are."""

import hashlib
import tarfile
from typing import Final

from params.layout import HELDOUT_SPLIT, REFERENCE_SHARD_PATTERN
from params.model import Model
from steps.data.encoding.decoding import ShardsSource, planned_samples
from steps.data.storage import Storage

SAMPLES_PER_SHARD: Final = 1000


class ReferenceShard(Model):
    """One shard of the manifest."""

    name: str
    samples: int
    bytes: int
    sha256: str


class ReferenceManifest(Model):
    """The held-out pictures."""

    plan_digest: str
    """Of everything that decided which pictures are held out."""
    source_manifest_digest: str
    resolution_px: int
    """Side at which the latents were encoded; the pictures may have another."""
    samples: int
    shards: tuple[ReferenceShard, ...]


def write_reference_shard(uri: str, source: ShardsSource, index: int) -> ReferenceShard:
    """Write one shard; return its line of the manifest."""
    first = index * SAMPLES_PER_SHARD
    count = min(SAMPLES_PER_SHARD, len(source.plan.heldout) - first)
    samples = planned_samples(source, HELDOUT_SPLIT, first, count)
    content = b"".join(sample.raw for sample in samples)
    end = 2 * tarfile.BLOCKSIZE
    content += bytes(end + -(len(content) + end) % tarfile.RECORDSIZE)
    name = REFERENCE_SHARD_PATTERN.format(index=index)
    storage = Storage(uri)
    if storage.size(name) != len(content) or storage.read(name) != content:
        storage.write(name, content)
    sha256 = hashlib.sha256(content).hexdigest()
    return ReferenceShard(name=name, samples=len(samples), bytes=len(content), sha256=sha256)
