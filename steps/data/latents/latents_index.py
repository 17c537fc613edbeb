"""index.arrow of the latents artifact: where every block is, as columns that all ranks of a host share.

An Arrow IPC file, uncompressed, of one record batch: a row for each shard, and in it a list with an entry for each
block. It is mapped, not read: 24 bytes a block, once for a host, in the system's cache of files. What cannot be mapped
(objects of S3, some network file systems) is copied to the host's temporary folder by the rank that comes first.
Earlier releases wrote index.json with the same fields, which every rank reads for itself.
"""

import fcntl
import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from params.files import write_bytes
from params.layout import LATENTS_FORMER_INDEX_FILE, LATENTS_INDEX_FILE
from steps.data.latents.latents_manifest import IndexedShard, LatentsIndex
from steps.data.storage import Storage

BLOCKS: Final = {"block_rows": pa.int32(), "offsets": pa.int64(), "sizes": pa.int32(), "xxh3": pa.uint64()}
SCHEMA: Final = pa.schema(
    [("name", pa.string()), ("split", pa.string()), ("bucket", pa.int32())]
    + [(name, pa.list_(kind)) for name, kind in BLOCKS.items()]
)


def to_batch(shards: Iterable[IndexedShard]) -> Any:
    """Return the index of shards, in the order of their rows, as a record batch."""
    rows = [{**dict(shard), "xxh3": [int(text, 16) for text in shard.xxh3]} for shard in shards]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def index_bytes(shards: Iterable[IndexedShard]) -> bytes:
    sink, batch = pa.BufferOutputStream(), to_batch(shards)
    with pa.ipc.new_file(sink, SCHEMA) as file:
        file.write_batch(batch)
    return bytes(sink.getvalue())


def read_index(files: Storage, manifest: bytes) -> Any:
    """Return the index that lies beside a manifest. Raises OSError, or ValueError for what is no index."""
    if files.size(LATENTS_INDEX_FILE) is None:
        return to_batch(LatentsIndex.model_validate_json(files.read(LATENTS_FORMER_INDEX_FILE)).shards)
    try:
        source = pa.memory_map(f"{files.uri}/{LATENTS_INDEX_FILE}")
    except OSError:
        source = pa.memory_map(str(_copy(files, hashlib.sha256(manifest).hexdigest())))
    return pa.ipc.open_file(source).get_batch(0).cast(SCHEMA)


def of_split(index: Any, split: str) -> Any:
    """Return the rows of a split's shards, in the same memory where they are neighbours, as Encode writes them."""
    own = pc.equal(index["split"], split)
    part = index.slice(max(0, pc.index(own, True).as_py()), pc.sum(own).as_py() or 0)
    return part if pc.all(pc.equal(part["split"], split)).as_py() is not False else index.filter(own)


def _copy(files: Storage, name: str) -> Path:
    path = Path(tempfile.gettempdir()) / f"latents-index-{name}.arrow"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            write_bytes(path, files.read(LATENTS_INDEX_FILE))
    return path
