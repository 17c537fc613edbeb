"""Shards for tests, written by the writer that downloads use, without a download."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from steps.data.shards.shard_writer import OrderedShardWriter
from steps.data.storage import Storage
from tests.steps.data.web import picture

SCHEMA = pa.schema([(name, pa.string()) for name in ("url", "caption", "key", "status", "error_message", "sha256")])


def open_writer(uri: str, index: int = 0) -> OrderedShardWriter:
    """Return a writer as img2dataset makes it."""
    Storage(uri).make()
    return OrderedShardWriter(index, uri, True, 5, SCHEMA, "jpg")


def put(writer: OrderedShardWriter, index: int, row: int, failed: str | None = None) -> None:
    """Write one row; its picture is `picture(row)`."""
    key, caption = f"{index:05d}{row:03d}", f"caption {row}"
    status = "failed_to_download" if failed else "success"
    meta: dict[str, Any] = {"url": f"http://x/{row}", "caption": caption, "key": key, "status": status}
    digest = None if failed else hashlib.sha256(picture(row)).hexdigest()
    writer.write(None if failed else picture(row), key, caption, {**meta, "error_message": failed, "sha256": digest})


def write_shard(uri: str, rows: Sequence[int], index: int = 0, failed: Sequence[int] = ()) -> Storage:
    """Write tar, parquet and statistics of one shard; `rows` is the order in which servers answered."""
    writer = open_writer(uri, index)
    for row in rows:
        put(writer, index, row, "http_404" if row in failed else None)
    writer.close()
    fates = Counter("http_404" if row in failed else "success" for row in rows)
    statistics = {"count": len(rows), "successes": fates["success"], "status_dict": dict(fates)}
    storage = Storage(uri)
    storage.write(f"{index:05d}_stats.json", json.dumps(statistics).encode())
    return storage
