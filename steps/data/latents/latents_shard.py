"""One latents shard: a WebDataset tar whose members are blocks, and what manifest and index say of it.

Writes nothing itself: a shard is built in memory (some 136 MB), so that its digests are known before it is uploaded.
The same blocks give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import PurePosixPath

from params.model import Model
from steps.data.latents.block import SUFFIX, digest, parse_layout
from steps.data.latents.latents_manifest import IndexedShard, LatentsShard


class BuiltShard(Model):
    """What manifest and index hold of one shard."""

    listed: LatentsShard
    indexed: IndexedShard


def build_shard(name: str, split: str, blocks: Iterable[bytes], bucket: int = 0) -> tuple[bytes, BuiltShard]:
    """Return the bytes of a shard and its description; `blocks` are safetensors, in the order of their rows."""
    stream = io.BytesIO()
    described: list[tuple[int, int, int, str]] = []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, block in enumerate(blocks):
            # A WebDataset key ends at the first dot.
            member = tarfile.TarInfo(f"{PurePosixPath(name).stem}-{number:05d}.{SUFFIX}")
            member.size, member.mode = len(block), 0o444
            tar.addfile(member, io.BytesIO(block))
            # The padding behind a member is written with it.
            offset = stream.tell() + -len(block) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            described.append((parse_layout(block).rows, offset, len(block), digest(block)))
    content = stream.getvalue()
    rows, offsets, sizes, xxh3 = zip(*described, strict=True)
    indexed = IndexedShard(
        name=name, split=split, bucket=bucket, block_rows=rows, offsets=offsets, sizes=sizes, xxh3=xxh3
    )
    sha256 = hashlib.sha256(content).hexdigest()
    listed = LatentsShard(name=name, split=split, rows=sum(rows), bytes=len(content), sha256=sha256)
    return content, BuiltShard(listed=listed, indexed=indexed)
